"""What a spawned process runs: it must be importable there, which a test module is not."""

import time

from tfx.components.trainer.fn_args_utils import FnArgs

from trainer.fitting.arguments import loaded_splits


def hold_images_on_disk(patterns, transform, loaded):
    """In a process of its own: load both splits as the Trainer does, and stay."""
    splits = {"train_files": patterns, "eval_files": patterns, "transform_output": transform}
    with loaded_splits(FnArgs(**splits, custom_config={"trainer": {"cache_mb": 0}, "image": {}})):
        loaded.set()
        time.sleep(600)
