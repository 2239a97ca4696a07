"""`autoencoder runs` and `autoencoder report` take a run's folder or its configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from pipeline.commands.report import report
from pipeline.commands.runs import runs
from pipeline.metadata.store import MetadataSettings, connection_of


def invoke(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def record_interrupted(folder: Path) -> None:
    """A run whose first component was killed."""
    folder.mkdir(parents=True)
    with metadata.Metadata(connection_of(MetadataSettings(), folder)) as handle:
        contexts = []
        for type_name, name in (("pipeline", folder.name), ("pipeline_run", f"{folder.name}-run")):
            type_id = handle.store.put_context_type(mlmd.ContextType(name=type_name), can_add_fields=True)
            contexts.append(mlmd.Context(type_id=type_id, name=name))
        type_id = handle.store.put_execution_type(mlmd.ExecutionType(name="Trainer"))
        execution = mlmd.Execution(type_id=type_id, last_known_state=mlmd.Execution.FAILED)
        _, _, [pipeline, run] = handle.store.put_execution(execution, [], contexts)
        handle.store.put_parent_contexts([mlmd.ParentContext(child_id=run, parent_id=pipeline)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the runs of two products."""
    for name in ("bolts", "nuts"):
        record_interrupted(tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_a_folder_of_one_product_lists_its_runs_alone(root: Path) -> None:
    listed = json.loads(invoke(runs, root / "nuts", "--json").stdout)
    assert {name: [run["run_id"] for run in past] for name, past in listed.items()} == {"nuts": ["nuts-run"]}
    assert set(json.loads(invoke(runs, "--root", root, "--json").stdout)) == {"bolts", "nuts"}


def test_a_folder_of_several_products_lists_all(root: Path, tmp_path: Path) -> None:
    assert set(json.loads(invoke(runs, root, "--json").stdout)) == {"bolts", "nuts"}
    assert invoke(runs, tmp_path).stdout == f"no runs in {tmp_path} yet; start one with: autoencoder run\n"
    result = invoke(runs, root / "nuts", "--root", root)
    assert (result.exit_code, result.stderr.startswith(f"--root {root}: leave it out")) == (2, True)


def test_an_interrupted_run_is_continued_with_its_own_configuration(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "my nuts.yaml"
    config.write_text(f"name: nuts\nroot: {root}\n")
    problem = f"{root}/nuts: the run has no evaluation to report; continue it with: autoencoder run"
    assert invoke(report, config, "--set", "trainer.epochs=3").stderr.splitlines()[-1] == (
        f"{problem} '{config}' --set trainer.epochs=3"
    )
    assert invoke(report, root / "nuts").stderr.splitlines()[-1] == (
        f"{problem} CONFIG, where CONFIG is the configuration with `name: nuts`"
    )
