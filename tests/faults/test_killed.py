"""Each component is killed twice by `kill -9`; the next run continues, and the result is that of an undisturbed run."""

import re
import signal

import faults
import pytest
from fault_runs import Runs, names_that, weights_digest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from pipeline.metadata.store import METADATA_FILE

pytestmark = pytest.mark.faults
RESOLVER = "latest_blessed_model"
COMPONENTS = [
    "CuratedSchemaGen", "ImageExampleGen", "StatisticsGen", "ExampleValidator", "Transform", "Trainer", "Calibrator",
    RESOLVER, "ModelAnalysis", "Evaluator", "Pusher", "Report",
]  # fmt: skip
AT_FIRST_FILE, BEFORE_PUBLISHED, AFTER = (
    "kill -9 at its first file",
    "kill -9 before it is recorded",
    "kill -9 after it",
)


def states(stderr):
    """Component -> its state in the output of a run."""
    return dict(re.findall(r"^[✓=✗-] (\w+) +(ran|cached|failed|skipped)", stderr, re.M))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Every component killed in turn, in one folder: (the runs, (component, moment) -> its end, the last run)."""
    runs = Runs(tmp_path_factory.mktemp("killed") / "runs")
    ends = {}
    for component in COMPONENTS:
        if component == RESOLVER:
            ends[component, AFTER] = runs.run(fault=faults.kill_after, details=(component,))
            continue
        details = (component, runs.folder)
        ends[component, AT_FIRST_FILE] = runs.run(fault=faults.kill_at_first_file, details=details)
        ends[component, BEFORE_PUBLISHED] = runs.run(fault=faults.kill_before_published, details=(component,))
    return runs, ends, runs.run()


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_component_is_run_again_and_those_before_it_are_not(killed, table, component):
    _, ends, last = killed
    moments = [moment for name, moment in ends if name == component]
    order = list(ends)
    for moment in moments:
        end = ends[component, moment]
        assert end.code == -signal.SIGKILL, end.stderr
        before, after = COMPONENTS[: COMPONENTS.index(component)], order[order.index((component, moment)) + 1 :]
        seen = states(end.stderr)
        # Only the component that was killed last runs again, either to its end or until it is killed a second time.
        assert set(seen) == set(before)
        assert [name for name in before[:-1] if seen[name] != "cached"] == []
        following = (ends[after[0]] if after else last).stderr
        assert (f"ended in the middle of {component}:" in following) == (moment != AFTER), following
        table(moment, component, "the next run reports it, and continues there")


def test_after_all_kills_the_result_equals_the_undisturbed_one(killed, undisturbed, table):
    _, _, last = killed
    expected = undisturbed[1].document
    assert last.code == 0, last.stderr
    assert names_that("cached", last) == COMPONENTS[:-1]
    # The last digits of a metric depend on the order in which threads finish.
    assert last.document["metrics"] == pytest.approx(expected["metrics"], rel=1e-6)
    assert weights_digest(last.document["pushed"]) == weights_digest(expected["pushed"])
    table(
        f"{len(killed[1])} times kill -9",
        "whole run",
        "weights identical to those of the undisturbed run, metrics equal",
    )


def test_no_partial_output_is_left(killed, undisturbed, table):
    runs, _, last = killed
    assert runs.versions == [last.document["pushed"].rpartition("/")[2]]
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(runs.folder / METADATA_FILE))) as handle:
        executions = {e.id: e.last_known_state for e in handle.store.get_executions()}
        live = {a.uri for a in handle.store.get_artifacts() if a.state == mlmd.Artifact.LIVE}
    assert mlmd.Execution.RUNNING not in executions.values()
    written = {path for path in (runs.folder / "artifacts").glob("[!.]*/[!.]*/*") if path.name.isdigit()}
    assert {str(path) for path in written} == live
    assert {executions[int(path.name)] for path in written} == {mlmd.Execution.COMPLETE}
    assert names_of_files(runs) == names_of_files(undisturbed[0])
    table(f"{len(killed[1])} times kill -9", "run's folder", "holds the same files as the undisturbed run's")


def names_of_files(runs):
    """Every file except logs, without the numbers of executions, versions and processes."""
    files = (path.relative_to(runs.folder) for path in runs.folder.rglob("*") if path.is_file())
    return sorted({re.sub(r"\d+", "N", str(path)) for path in files if "events.out" not in path.name})
