"""The Beam options of each component: everyone's, then its own, then what keeps workers from installing in vain."""

import difflib
from collections.abc import Iterable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_node import BaseNode

from pipeline.configuration.configuration import BeamSettings, ConfigurationError

_LOCAL_RUNNERS = (
    None,
    "DirectRunner",
    "SwitchingDirectRunner",
    "BundleBasedDirectRunner",
    "FnApiRunner",
    "PrismRunner",
)
_BRINGS_OUR_CODE = ("sdk_container_image", "setup_file", "extra_packages", "requirements_file")
# Without it TFX packs itself as a source distribution for remote workers in every Beam component, two seconds each;
# workers that install nothing have no use for it.
_INSTALL_NOTHING = "--sdk_container_image=as-it-is"


def give_beam_options(components: Iterable[BaseNode], settings: BeamSettings) -> None:
    """Set the options of every component that runs on Beam.

    Raises ConfigurationError for an override of a component that does not run on Beam, and for workers that would
    start without our code.
    """
    on_beam = {node.id: node for node in components if isinstance(node, BaseBeamComponent)}
    for name in settings.components:
        if name not in on_beam:
            near = difflib.get_close_matches(name, on_beam, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(on_beam)}"
            raise ConfigurationError(f"beam.components: no component on Beam is called '{name}'; {hint}")
    for name, node in on_beam.items():
        node.with_beam_pipeline_args(_arguments(name, settings))


def _arguments(name: str, settings: BeamSettings) -> list[str]:
    arguments = [*settings.args, *settings.components.get(name, ())]  # of an option given twice, Beam takes the last
    options = PipelineOptions(arguments)
    if any(options.get_all_options().get(option) for option in _BRINGS_OUR_CODE):
        return arguments
    if _workers_install_packages(options):
        raise ConfigurationError(
            f"beam: the workers of {name} ({options.view_as(StandardOptions).runner}) would start without this "
            "project's code: name an image with --sdk_container_image=..., or let each worker install it with "
            "--setup_file=./setup.py"
        )
    return [*arguments, _INSTALL_NOTHING]


def _workers_install_packages(options: Any) -> bool:
    """Whether workers start from Beam's own container: neither in this process nor in an environment made for them."""
    if options.view_as(StandardOptions).runner in _LOCAL_RUNNERS:
        return False
    return options.view_as(PortableOptions).environment_type in (None, "DOCKER")
