"""The whole pipeline has the same result on a cluster as in one process, even if a machine is lost.

Run with `make test-cluster`. The clusters are real, and run on this machine: see docs/scale.md.
"""

import json
import re
from pathlib import Path

import pytest
from command_line import autoencoder
from flink_cluster import TASK_MANAGERS, flink_cluster
from servers import job_server_jar, worker_pool
from spark_cluster import WORKERS, spark_cluster

from bench.images import write_synthetic_images

ON_BEAM = ["ImageExampleGen", "StatisticsGen", "Transform", "ModelAnalysis"]

pytestmark = pytest.mark.cluster


def run(root, configuration, *beam_options):
    """The --json document of a run on 2,800 made pictures, in six shards, whose constants are found by analysis."""
    write_synthetic_images(root / "images", 2_800, seed=0)
    settings = [
        f"root={root}",
        f"data.path={root / 'images'}",
        "data.images_per_shard=500",
        "image.normalisation=zscore",
        "trainer.preset=dense",
        "trainer.epochs=3",
        "evaluation.thresholds=[]",
        # The job names that the cluster lists.
        f"beam.components={json.dumps({name: [f'--job_name={name}'] for name in ON_BEAM})}",
    ]
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    _, printed, log = autoencoder("run", configuration, "--json", *overrides, "--", *beam_options)
    assert printed, log
    document = json.loads(printed)
    assert document["error"] is None, (document["error"], log[-5000:])
    return document


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A run with Beam in the pipeline's own process."""
    return run(tmp_path_factory.mktemp("here"), "configs/mnist-dense.yaml", "--direct_running_mode=in_memory")


@pytest.fixture(scope="module")
def on_flink(tmp_path_factory):
    """(document, jobs) of a run on two task managers."""
    return run_on_flink(tmp_path_factory.mktemp("flink"))


@pytest.fixture(scope="module")
def on_flink_with_a_loss(tmp_path_factory):
    """(document, jobs) of a run that loses one of two task managers during Transform."""
    return run_on_flink(tmp_path_factory.mktemp("loss"), lose_one_during="Transform")


def run_on_flink(root, lose_one_during=None):
    jar = job_server_jar("flink")
    with flink_cluster(jar, root) as cluster, worker_pool(root) as pool:
        if lose_one_during:
            cluster.kill_one_during(lose_one_during)
        options = [f"--flink_master={cluster.rest}", f"--flink_job_server_jar={jar}", "--parallelism=2"]
        options += [f"--environment_config={pool}", "--job_server_jvm_properties=-Xmx512m"]
        return run(root, "configs/beam-flink.yaml", *options), cluster.history()


@pytest.fixture(scope="module")
def on_spark(tmp_path_factory):
    """(document, executors of each job) of a run on two Spark workers."""
    root = tmp_path_factory.mktemp("spark")
    jar = job_server_jar("spark")
    with spark_cluster(jar, root) as cluster, worker_pool(root) as pool:
        options = [*cluster.options, f"--environment_config={pool}"]
        return run(root, "configs/beam-spark.yaml", *options), cluster.executors()


@pytest.fixture(scope="module", params=["two processes", "Flink", "Flink with a loss", "Spark"])
def there(request, tmp_path_factory):
    """A run whose Beam steps ran in other processes."""
    if request.param == "two processes":
        options = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
        return run(tmp_path_factory.mktemp("two"), "configs/mnist-dense.yaml", *options)
    return request.getfixturevalue(f"on_{request.param.lower().replace(' ', '_')}")[0]


def test_flink_runs_every_step_on_both_task_managers(on_flink):
    _, jobs = on_flink
    assert {job.name for job in jobs} == set(ON_BEAM)
    assert [(job.name, job.task_managers, job.failures) for job in jobs] == [
        (job.name, set(TASK_MANAGERS), []) for job in jobs
    ]


def test_flink_retries_after_losing_a_task_manager_during_transform(on_flink_with_a_loss):
    _, jobs = on_flink_with_a_loss
    assert {job.state for job in jobs} == {"FINISHED"}
    [transform] = [job for job in jobs if job.failures]
    assert transform.name == "Transform"
    assert any(re.search(rf"\b{TASK_MANAGERS[1]}\b", failure) for failure in transform.failures), transform.failures
    assert transform.task_managers == {TASK_MANAGERS[0]}


def test_spark_runs_every_step_on_both_workers(on_spark):
    _, executors = on_spark
    assert {name for name, _ in executors} == set(ON_BEAM)
    assert executors == [(name, {str(number) for number in range(WORKERS)}) for name, _ in executors]


def outputs(document, pattern):
    """Paths of the component's output files by their name below it."""
    root = Path(document["paths"]["artifacts"])
    paths = {"/".join(path.relative_to(root).parts[3:]): path for path in root.glob(pattern) if path.is_file()}
    assert paths, f"{root} holds no {pattern}"
    return paths


def test_every_step_ran(there):
    states = {component["name"]: component["state"] for component in there["components"]}
    assert {name: states[name] for name in ON_BEAM} == dict.fromkeys(ON_BEAM, "ran")


def test_splits_have_the_same_bytes(here, there):
    ours, theirs = (outputs(document, "ImageExampleGen/examples/*/Split-*/*") for document in (here, there))
    assert sorted(name.split("/")[0] for name in ours) == ["Split-eval"] * 5 + ["Split-test"] + ["Split-train"] * 5
    assert {name: path.read_bytes() for name, path in ours.items()} == {
        name: path.read_bytes() for name, path in theirs.items()
    }
    assert here["images"] == there["images"]


def test_statistics_agree(here, there):
    import tensorflow_data_validation as tfdv

    ours, theirs = (outputs(document, "StatisticsGen/statistics/*/Split-*/*") for document in (here, there))
    assert set(ours) == set(theirs)
    for name, path in ours.items():
        one, other = (tfdv.load_stats_binary(str(p)).datasets[0] for p in (path, theirs[name]))
        assert one.num_examples == other.num_examples
        features = {feature.path.step[0]: feature for feature in other.features}
        for feature in one.features:
            twin = features[feature.path.step[0]]
            if feature.HasField("num_stats"):
                for field in ("mean", "std_dev", "min", "max", "num_zeros"):
                    assert getattr(feature.num_stats, field) == pytest.approx(
                        getattr(twin.num_stats, field), rel=1e-9, abs=1e-12
                    )
            else:
                assert feature.string_stats.unique == twin.string_stats.unique


def test_transform_computes_the_same_constants(here, there):
    import tensorflow_transform as tft

    from trainer.data.dataset import pixel_constants

    def constants(document):
        root = Path(document["paths"]["artifacts"])
        [graph] = root.glob("Transform/transform_graph/*")
        [examples] = root.glob("ImageExampleGen/examples/*/Split-train")
        return pixel_constants([f"{examples}/*"], tft.TFTransformOutput(str(graph)))

    ours, theirs = constants(here), constants(there)
    assert 0.3 < ours.offset[0] < 0.45
    assert theirs.offset == pytest.approx(ours.offset, rel=1e-6)
    assert theirs.scale == pytest.approx(ours.scale, rel=1e-6)


def test_the_gate_has_the_same_metrics(here, there):
    assert here["blessed"] == there["blessed"]
    assert there["metrics"] == pytest.approx(here["metrics"], rel=1e-6, abs=1e-6)
