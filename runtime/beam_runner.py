"""The runner of Beam pipelines that run on this machine."""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_CHOOSES_AMONG_RUNNERS = (None, "DirectRunner", "SwitchingDirectRunner")


def with_local_runner(arguments: Sequence[str]) -> list[str]:
    """Beam's options, naming the runner that the DirectRunner uses without a network.

    With one, in Beam 2.77, it first downloads Prism from GitHub, a program that ignores `--direct_running_mode`. Each
    attempt also leaves files in the temporary folder.
    """
    if PipelineOptions(list(arguments)).view_as(StandardOptions).runner in _CHOOSES_AMONG_RUNNERS:
        return [*arguments, f"--runner={FN_API_RUNNER}"]
    return list(arguments)
