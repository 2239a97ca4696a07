"""One of the processes that train together on several machines: `python -m trainer.worker JOB`, with TF_CONFIG set."""

import json
import logging
import sys

from runtime.imports import imported_for_good

with imported_for_good():
    import tensorflow as tf
    from tfx.components.trainer.fn_args_utils import FnArgs

    from trainer.fitting.arguments import loaded_splits
    from trainer.fitting.fit import fit
    from trainer.fitting.tracing import keep_autograph_out


def main(job: str) -> None:
    """Train with the arguments in the file `job`; the chief leaves a finished checkpoint. Logs every epoch."""
    logging.basicConfig()
    logging.getLogger("trainer").setLevel(logging.INFO)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # must come before any other use of TensorFlow
    keep_autograph_out()
    with tf.io.gfile.GFile(job) as file:
        fn_args = FnArgs(**json.loads(file.read()))
    with loaded_splits(fn_args) as (train, held_out, constants):
        fit(fn_args, train, held_out, constants, strategy)


if __name__ == "__main__":
    main(sys.argv[1])
