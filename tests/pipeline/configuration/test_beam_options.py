"""Beam's options reach the components that run on Beam; workers never start without our code."""

import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from repository import REPOSITORY

from pipeline.configuration.configuration import BeamSettings, Configuration, ConfigurationError
from pipeline.configuration.loading import load_configuration

FLINK = ("--runner=FlinkRunner", "--flink_master=localhost:8081")


def options_by_component(settings):
    """Component -> its Beam options in the compiled pipeline."""
    from pipeline.graph import create_pipeline

    pipeline = create_pipeline(
        Configuration(beam=settings), data_fingerprint="", pipeline_root="/nowhere", push_destination="/nowhere"
    )
    specs = {node.id: node.executor_spec for node in pipeline.components}
    return {name: list(spec.beam_pipeline_args) for name, spec in specs.items() if hasattr(spec, "beam_pipeline_args")}


def test_components_on_beam_get_the_options():
    options = options_by_component(BeamSettings(args=(*FLINK, "--environment_type=LOOPBACK")))
    assert {"ImageExampleGen", "StatisticsGen", "Transform", "ModelAnalysis"} <= set(options)
    assert all(given[:2] == list(FLINK) for given in options.values())


def test_a_components_own_options_override_the_common_ones():
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    own = {"Transform": ("--direct_num_workers=7",)}
    options = options_by_component(BeamSettings(args=("--direct_num_workers=2",), components=own))
    workers = {
        name: PipelineOptions(given).view_as(DirectOptions).direct_num_workers for name, given in options.items()
    }
    assert workers.pop("Transform") == 7
    assert set(workers.values()) == {2}


@pytest.mark.parametrize("given", [(), ("--runner=DirectRunner",)])
def test_pipelines_on_this_machine_download_no_runner(given):
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    for arguments in options_by_component(BeamSettings(args=given)).values():
        assert PipelineOptions(arguments).view_as(StandardOptions).runner.endswith(".FnApiRunner")


def test_options_of_an_unknown_component_suggest_the_closest_name():
    with pytest.raises(ConfigurationError, match="'Transfrom'; did you mean 'Transform'"):
        options_by_component(BeamSettings(components={"Transfrom": ("--parallelism=2",)}))


@pytest.mark.parametrize("how", ["--sdk_container_image=registry/autoencoder", "--setup_file=./setup.py"])
def test_container_workers_need_an_image_or_a_setup_file(how):
    with pytest.raises(ConfigurationError, match="without this project's code"):
        options_by_component(BeamSettings(args=FLINK))
    assert options_by_component(BeamSettings(args=(*FLINK, how)))["Transform"] == [*FLINK, how]


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("configs/beam-*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_cluster_configurations_are_complete(path):
    settings = load_configuration(path).beam
    runner = {"beam-flink": "FlinkRunner", "beam-spark": "SparkRunner", "beam-dataflow": "DataflowRunner"}[path.stem]
    options = options_by_component(settings)
    assert all(f"--runner={runner}" in given for given in options.values())


def test_a_run_on_dataflow_with_a_local_folder_is_not_started():
    from pipeline.cli import main

    ran = CliRunner().invoke(main, ["run", str(REPOSITORY / "configs/beam-dataflow.yaml")])
    assert ran.exit_code == 2
    assert "Dataflow's workers cannot reach the folder 'runs'" in " ".join(ran.output.split())


def test_a_misplaced_argument_is_not_taken_for_an_option_of_beam():
    from pipeline.cli import main

    misplaced = CliRunner().invoke(main, ["run", "configs/digits.yaml", "trainer.epochs=3"])
    assert misplaced.exit_code == 2
    assert "unexpected argument 'trainer.epochs=3'" in misplaced.output
    unnamed = CliRunner().invoke(main, ["run", "--", "--runner=FlinkRunner"])
    assert unnamed.exit_code == 2
    assert "name CONFIG before the options for Beam" in unnamed.output


def test_a_setup_file_carries_all_our_code_to_the_workers(tmp_path):
    from apache_beam.runners.portability.stager import Stager

    archive = Stager._build_setup_package(str(REPOSITORY / "setup.py"), str(tmp_path))
    with tarfile.open(archive) as package:
        names = {"/".join(Path(name).parts[1:]) for name in package.getnames()}
    packages = ("schema", "runtime", "images", "components", "trainer", "pipeline", "serving")
    sources = {
        path.relative_to(REPOSITORY).as_posix() for name in packages for path in (REPOSITORY / name).rglob("*.py")
    }
    assert sources | {"schema/schema.pbtxt"} <= names
