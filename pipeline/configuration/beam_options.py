"""The Beam options of each component: the common ones, its own, and one that avoids needless installations."""

from collections.abc import Iterable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_node import BaseNode

from pipeline.configuration.configuration import BeamSettings, ConfigurationError
from runtime.beam_runner import FN_API_RUNNER, with_local_runner
from runtime.did_you_mean import did_you_mean

_LOCAL_RUNNERS = ("FnApiRunner", FN_API_RUNNER, "BundleBasedDirectRunner", "PrismRunner")
_BRINGS_OUR_CODE = ("sdk_container_image", "setup_file", "extra_packages", "requirements_file")
# Without this option, TFX builds a source distribution of itself for remote workers in every Beam component, which
# takes two seconds each and is useless for workers that install nothing.
_INSTALL_NOTHING = "--sdk_container_image=as-it-is"


def set_beam_options(components: Iterable[BaseNode], settings: BeamSettings) -> None:
    """Set the options of every component that runs on Beam.

    Raises ConfigurationError for options of a component that does not run on Beam, and for workers that would start
    without our code.
    """
    on_beam = {node.id: node for node in components if isinstance(node, BaseBeamComponent)}
    for name in settings.components:
        if name not in on_beam:
            hint = did_you_mean(name, on_beam, f"; use one of {', '.join(on_beam)}")
            raise ConfigurationError(f"beam.components: no component that runs on Beam is called '{name}'{hint}")
    for name, node in on_beam.items():
        node.with_beam_pipeline_args(_arguments(name, settings))


def _arguments(name: str, settings: BeamSettings) -> list[str]:
    # Of repeated options, Beam uses the last.
    arguments = with_local_runner([*settings.args, *settings.components.get(name, ())])
    options = PipelineOptions(arguments)
    if any(options.get_all_options().get(option) for option in _BRINGS_OUR_CODE):
        return arguments
    if _workers_install_packages(options):
        raise ConfigurationError(
            f"beam: the workers of {name} ({options.view_as(StandardOptions).runner}) would start without this "
            "project's code: give an image with --sdk_container_image=..., or let each worker install the code with "
            "--setup_file=./setup.py"
        )
    return [*arguments, _INSTALL_NOTHING]


def _workers_install_packages(options: Any) -> bool:
    """Whether workers start from Beam's own container, not in this process or in a prepared environment."""
    if options.view_as(StandardOptions).runner in _LOCAL_RUNNERS:
        return False
    return options.view_as(PortableOptions).environment_type in (None, "DOCKER")
