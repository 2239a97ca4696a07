"""The whole pipeline on workers in other processes, as on a cluster, leaves what a run in one process leaves.

`make test-cluster`; against a cluster of yours: BEAM_JOB_ENDPOINT=localhost:8099 make test-cluster (docs/scale.md).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.images import write_made_images

REPOSITORY = Path(__file__).parent.parent.parent
ON_BEAM = ["ImageExampleGen", "StatisticsGen", "Transform", "Evaluator"]

pytestmark = pytest.mark.cluster


def run(root, *beam_options, settings=()):
    """The --json document of a run on 2,800 made pictures, in six shards, whose constants are found by analysis."""
    write_made_images(root / "images", 2_800, seed=0)
    settings = [
        *settings,
        f"root={root}",
        f"data.path={root / 'images'}",
        "data.images_per_shard=500",
        "image.normalisation=zscore",
        "trainer.epochs=3",
        "evaluation.thresholds=[]",
    ]
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli import main; main()",
        "run",
        "configs/mnist-dense.yaml",
        "--json",
    ]
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run(
        [*command, *overrides, "--", *beam_options], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert ran.stdout, ran.stderr
    document = json.loads(ran.stdout)
    assert document["error"] is None, document["error"]
    return document


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A run with Beam in the pipeline's own process."""
    return run(tmp_path_factory.mktemp("here"), "--direct_running_mode=in_memory")


@pytest.fixture(scope="module", params=["behind a job service", "two at once", "work done twice"])
def there(request, tmp_path_factory):
    """A run whose Beam steps were done by workers in other processes, or begun again like those of a lost worker."""
    root = tmp_path_factory.mktemp("there")
    if request.param == "work done twice":
        # Beam throws away what each bundle put out, and processes it anew. Not for Transform: see docs/scale.md.
        twice = {name: ["--direct_runner_bundle_repeat=1"] for name in ON_BEAM if name != "Transform"}
        return run(root, settings=[f"beam.components={json.dumps(twice)}"])
    if request.param == "two at once":
        return run(root, "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    return run(root, *request.getfixturevalue("job_service"))


def outputs(document, pattern):
    """File name below the component's output -> path."""
    root = Path(document["paths"]["artifacts"])
    paths = {"/".join(path.relative_to(root).parts[3:]): path for path in root.glob(pattern) if path.is_file()}
    assert paths, f"{root} holds no {pattern}"
    return paths


def test_every_step_ran(there):
    states = {component["name"]: component["state"] for component in there["components"]}
    assert {name: states[name] for name in ON_BEAM} == dict.fromkeys(ON_BEAM, "ran")


def test_splits_are_the_same_bytes(here, there):
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


def test_transform_finds_the_same_constants(here, there):
    import tensorflow_transform as tft

    from trainer.dataset import pixel_constants

    def constants(document):
        root = Path(document["paths"]["artifacts"])
        [graph] = root.glob("Transform/transform_graph/*")
        [examples] = root.glob("ImageExampleGen/examples/*/Split-train")
        return pixel_constants([f"{examples}/*"], tft.TFTransformOutput(str(graph)))

    ours, theirs = constants(here), constants(there)
    assert 0.3 < ours.offset[0] < 0.45
    assert theirs.offset == pytest.approx(ours.offset, rel=1e-6)
    assert theirs.scale == pytest.approx(ours.scale, rel=1e-6)


def test_the_gate_measures_the_same(here, there):
    assert here["blessed"] == there["blessed"]
    assert there["metrics"] == pytest.approx(here["metrics"], rel=1e-6, abs=1e-6)
