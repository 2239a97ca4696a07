"""Whole runs of configs/digits.yaml, which share their first run."""

import io
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from command_line import REPOSITORY, autoencoder, command
from local_runs import BAD_USAGE, COMPONENTS, DONE, FAILED, REFUSED, names_that, read_examples, run, states
from PIL import Image
from ports import free_port
from waiting import wait_until

from serving.client import score_images, wait_until_ready
from serving.reviewing.decisions import digest_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """The folder for temporary files of the first run."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, temporary):
    """A first run of the default configuration, which tests must not change: (root, document)."""
    root = tmp_path_factory.mktemp("runs")
    code, document = run("configs/digits.yaml", root, TMPDIR=str(temporary))
    assert code == DONE, document
    return root, document


@pytest.fixture(scope="module")
def backup(first_run, tmp_path_factory):
    return shutil.copytree(first_run[0] / "digits", tmp_path_factory.mktemp("backup") / "digits", symlinks=True)


@pytest.fixture
def digits(first_run, backup):
    """The first run, for a test that changes its folder, which is restored afterwards: (root, document)."""
    yield first_run
    folder = first_run[0] / "digits"
    shutil.rmtree(folder)
    shutil.copytree(backup, folder, symlinks=True)


def test_a_first_run_runs_everything_and_pushes_a_model(first_run):
    _, document = first_run
    assert names_that("ran", document) == COMPONENTS
    assert document["blessed"]
    assert document["metrics"]["mean_error"] < 0.02
    assert document["metrics"]["example_count"] == 181
    counts = {name: count for name, count in document["images"].items() if count}
    assert counts == {"train": 1419, "eval": 197, "test": 181}
    assert all(row["passed"] for row in document["thresholds"])
    assert (Path(document["pushed"]) / "saved_model.pb").exists()
    assert Path(document["pushed"]).parent == Path(document["run"]) / "serving"


def test_a_run_leaves_no_temporary_files(first_run, temporary):
    assert sorted(temporary.iterdir()) == []


def test_the_pushed_model_scores_a_png_as_numpy_does(first_run):
    import tensorflow as tf

    model = tf.saved_model.load(first_run[1]["pushed"])
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    scored = model.signatures["serving_default"](image_bytes=tf.constant([buffer.getvalue()]))
    full = model.signatures["reconstruct"](image_bytes=tf.constant([buffer.getvalue()]))
    reconstruction = full["reconstruction"].numpy()[0, :, :, 0]
    squared = (pixels / 255.0 - reconstruction) ** 2
    assert scored["error"].numpy()[0] == pytest.approx(squared.mean(), rel=1e-5)
    assert full["error_map"].numpy()[0] == pytest.approx(squared, abs=1e-6)
    assert scored["is_anomaly"].numpy()[0] == int(scored["score"].numpy()[0] > scored["threshold"].numpy()[0]) == 1
    by_pixels = model.signatures["pixels"](image=tf.constant(pixels[None, :, :, None] / 255.0, tf.float32))
    assert by_pixels["error"].numpy() == pytest.approx(scored["error"].numpy(), rel=1e-5)
    latent = model.signatures["encode"](image=tf.constant(pixels[None, :, :, None] / 255.0, tf.float32))["latent"]
    decoded = model.signatures["decode"](latent=latent)["reconstruction"].numpy()[0, :, :, 0]
    assert decoded == pytest.approx(reconstruction, abs=1e-6)


def test_trainer_evaluator_and_pushed_model_agree_on_every_image(first_run):
    import tensorflow as tf

    from trainer.scoring.calibration import conformal_threshold

    root, document = first_run
    model = tf.saved_model.load(document["pushed"])
    record = json.loads(Path(document["pushed"], "assets.extra/autoencoder.json").read_text())

    def served(split, output):
        encoded = [example["image"].bytes_list.value[0] for example in read_examples(root, split)]
        return model.signatures["serving_default"](image_bytes=tf.constant(encoded))[output].numpy()

    held_out, test = served("eval", "error"), served("test", "error")
    assert len(held_out) > 100
    assert len(test) > 100
    assert held_out.mean() == pytest.approx(record["history"]["val_error"][-1], abs=1e-5)
    scores = served("eval", "score")
    assert conformal_threshold(scores, 0.01) == pytest.approx(record["calibration"]["threshold"], abs=1e-5)
    assert test.mean() == pytest.approx(document["metrics"]["mean_error"], abs=1e-5)
    assert test.max() == pytest.approx(document["metrics"]["max_error"], abs=1e-5)


def test_tensorboard_gets_curves_and_pictures(first_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model_run = Path(first_run[1]["paths"]["pictures"]).parent
    curves = EventAccumulator(str(model_run / "validation"), {"tensors": 0}).Reload()
    assert "epoch_loss" in curves.Tags()["tensors"]
    assert len(curves.Tensors("epoch_loss")) == 60
    pictures = EventAccumulator(str(model_run / "pictures"), {"tensors": 0}).Reload()
    assert {"originals over reconstructions", "latent"} <= set(pictures.Tags()["tensors"])
    with Image.open(model_run / "reconstructions.png") as picture:
        assert picture.size == (10 * 8 * 12, 2 * 8 * 12)


def test_the_pca_floor_is_scikit_learns(first_run):
    import tensorflow as tf
    from sklearn.decomposition import PCA

    root, document = first_run

    def pixels(split):
        images = [example["image"].bytes_list.value[0] for example in read_examples(root, split)]
        return np.stack([tf.io.decode_png(image).numpy().ravel() / 255.0 for image in images])

    pca = PCA(8).fit(pixels("train"))
    test = pixels("test")
    expected = ((test - pca.inverse_transform(pca.transform(test))) ** 2).mean()
    assert document["metrics"]["pca_mean_error"] == pytest.approx(expected, rel=1e-4)


def test_controls_are_measured_as_tfma_measures_the_candidate(first_run):
    import tensorflow as tf

    from components.evaluation.bounds import CANDIDATE
    from components.evaluation.control_metrics import control_metrics_of
    from components.evaluation.gate import read_metrics

    artifacts = first_run[0] / "digits/artifacts"
    [model], [examples], [analysis] = (
        artifacts.glob(pattern)
        for pattern in ("Calibrator/model/*/Format-Serving", "ImageExampleGen/examples/*", "ModelAnalysis/analysis/*")
    )
    loaded = tf.saved_model.load(str(model))  # a signature alone would lose its variables
    ours = control_metrics_of(loaded.signatures["examples"], f"{examples}/Split-test")
    tfmas = read_metrics(str(analysis), CANDIDATE)
    assert ours.keys() == tfmas.keys() == {None, *"0123456789"}
    for label, of_label in tfmas.items():
        assert ours[label] == pytest.approx(of_label, rel=1e-5)


def test_the_same_run_again_is_all_cached(digits):
    root, first = digits
    code, document = run("configs/digits.yaml", root)
    assert code == DONE
    assert names_that("cached", document) == COMPONENTS
    assert document["pushed"] == first["pushed"]
    assert document["metrics"] == first["metrics"]


def test_a_review_shows_suspects_and_test_images_and_records_decisions(digits):
    root, _ = digits
    folder = root / "digits"
    arguments = ("review", folder, "--port", "0", "--limit", "30", "--images", folder.parent / "more")
    (folder.parent / "more").mkdir()
    Image.new("L", (8, 8), 255).save(folder.parent / "more/white.png")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = subprocess.Popen(
        command(*arguments), cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    address, token = started.stdout.readline().decode().split()[-1].split("#token=")

    def ask(path, document=None):
        headers = {"Authorization": f"Bearer {token}", "Origin": address.rstrip("/")}
        body = None if document is None else json.dumps(document).encode()
        with urllib.request.urlopen(urllib.request.Request(address + path, body, headers), timeout=60) as response:
            return json.loads(response.read())

    items = ask("queue")["items"]
    suspects = [json.loads(line) for line in (folder / "suspects.jsonl").read_text().splitlines()]
    of_source = {source: [i["name"] for i in items if i["source"] == source] for source in ("suspect", "test image")}
    assert set(of_source["suspect"]) == {suspect["image_id"] for suspect in suspects}
    test_images = {example["image_id"].bytes_list.value[0].decode() for example in read_examples(root, "test")}
    assert set(of_source["test image"]) < test_images
    assert [item["name"] for item in items if item["source"] == "folder"] == [str(folder.parent / "more/white.png")]
    assert len(items) == 30 + len(suspects)
    ask("decisions", {"digest": items[0]["digest"], "decision": "defect", "label": "smear", "reviewer": "Anna"})
    started.send_signal(signal.SIGINT)
    stdout, _ = started.communicate(timeout=60)
    assert started.returncode == DONE
    assert f"0 normal, 1 defect, 0 unsure: {folder}/review/reviewed.csv" in stdout.decode()
    assert ",smear,,1," in (folder / "review/reviewed.csv").read_text()


def test_what_is_decided_in_the_tab_of_a_server_reaches_the_next_run(digits, tmp_path):
    """Their images test both models; a defect leaves the training images, and half of the normal ones calibrate."""
    root, first = digits
    test = [example["image"].bytes_list.value[0] for example in read_examples(root, "test")]
    inverted = [inverted_png(image) for image in test[:20]]
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    options = ("--own", "--port", "0", "--rest-port", port, "--keep-images", tmp_path / "kept", "--keep-rate", "1")
    server = subprocess.Popen(
        command("serve", root / "digits", *options), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        printed, _, token = server.stdout.readline().decode().strip().partition("#token=")
        assert printed == f"To review the images that it keeps, open {address}"
        wait_until_ready(address, timeout_s=90)
        score_images([*inverted, *test[20:40]], server=address)

        def ask(path, document=None):
            headers = {"Authorization": f"Bearer {token}", "Origin": address.rstrip("/")}
            body = None if document is None else json.dumps(document).encode()
            with urllib.request.urlopen(urllib.request.Request(address + path, body, headers), timeout=60) as response:
                return json.loads(response.read())

        suspects = [json.loads(line) for line in (root / "digits/suspects.jsonl").read_text().splitlines()]
        queue = "review/autoencoder/queue"
        wait_until(lambda: len(ask(queue)["items"]) == 40 + len(suspects), timeout_s=120)
        items = ask(queue)["items"]
        suspect = next(item for item in items if item["split"] == "train")
        decided = {digest_of(image): "defect" for image in inverted} | {
            digest_of(image): "normal" for image in test[20:40]
        }
        assert {item["digest"] for item in items if item["source"] == "kept"} == set(decided)
        for digest, decision in {**decided, suspect["digest"]: "defect"}.items():
            sent = {"digest": digest, "decision": decision, "label": "odd", "reviewer": "Anna"}
            ask("review/autoencoder/decisions", sent)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert server.returncode == DONE
    code, document = run("configs/digits.yaml", root, "trainer.epochs=5", "evaluation.thresholds=[]")
    assert code == REFUSED, document["error"]
    counts, reviewed = document["images"], document["reviewed"]
    assert (counts["reviewed"], counts["replaced"], counts["train"]) == (41, 21, first["images"]["train"] - 1)
    tested = reviewed["normal"]
    assert 4 <= tested <= 16
    assert counts["eval"] == first["images"]["eval"] + 20 - tested
    assert counts["test"] == first["images"]["test"] - 20 + tested + 21
    assert reviewed["defects"] == 21
    assert reviewed["comparison"]["verdict"] in ("better", "worse", "no_difference")
    check_reviewed_against_the_served_model(root, first, reviewed)
    assert document["changes"]["train images"] == [first["images"]["train"], counts["train"]]
    assert document["changes"]["threshold"][0] != document["changes"]["threshold"][1]


def inverted_png(encoded):
    buffer = io.BytesIO()
    Image.fromarray(255 - np.asarray(Image.open(io.BytesIO(encoded)))).save(buffer, "PNG")
    return buffer.getvalue()


def check_reviewed_against_the_served_model(root, first, reviewed):
    """AUROC, recall and false alarms of the first run's model, from what its pushed version answers."""
    import tensorflow as tf
    from sklearn.metrics import roc_auc_score

    newest = max((root / "digits/artifacts/ImageExampleGen/examples").iterdir(), key=lambda folder: int(folder.name))
    records = tf.data.TFRecordDataset(sorted(map(str, newest.glob("Split-test/*")))).as_numpy_iterator()
    features = [tf.train.Example.FromString(record).features.feature for record in records]
    features = [one for one in features if one["image_id"].bytes_list.value[0].startswith(b"reviewed:")]
    is_anomaly = np.array([one["is_anomaly"].int64_list.value[0] for one in features])
    images = tf.constant([one["image"].bytes_list.value[0] for one in features])
    scored = tf.saved_model.load(first["pushed"]).signatures["serving_default"](image_bytes=images)
    alarms = scored["is_anomaly"].numpy()
    last = reviewed["last_model"]
    assert last["auroc"]["value"] == pytest.approx(roc_auc_score(is_anomaly, scored["score"].numpy()), abs=1e-6)
    assert (last["recall"]["count"], last["recall"]["of"]) == (alarms[is_anomaly == 1].sum(), 21)
    assert last["false_alarms"]["count"] == alarms[is_anomaly == 0].sum()


def test_a_pushed_version_that_was_removed_is_pushed_again(digits):
    root, first = digits
    shutil.rmtree(first["pushed"])
    code, document = run("configs/digits.yaml", root)
    assert code == DONE
    assert names_that("ran", document) == ["Pusher"]
    assert (Path(document["pushed"]) / "saved_model.pb").exists()


def test_other_thresholds_re_run_only_the_gate_and_a_refused_model_is_not_pushed(digits):
    root, first = digits
    impossible = [
        "{metric: mean_error, max: 0.000001}",
        "{metric: ssim, min: 0.1, label: '3'}",
        "{metric: psnr, min: 90, label: '3'}",
        "{metric: noise_ratio, min: 1000}",
        "{metric: error_at_noise_20, max: 0.000001}",
        "{metric: false_alarm_rate, min: 0.5}",
        "{metric: effective_dimension, min: 9}",
        "{metric: auroc, min: 0.1}",
        "{metric: mean_error, max: 1, label: none-has-this}",
    ]
    code, document = run("configs/digits.yaml", root, f"evaluation.thresholds=[{', '.join(impossible)}]")
    assert code == REFUSED
    assert names_that("ran", document) == ["Evaluator", "Pusher", "Report"]
    assert not document["blessed"]
    assert document["pushed"] is None
    refused = {row["metric"]: row["reason"] for row in document["thresholds"] if not row["passed"]}
    assert len([row for row in document["thresholds"] if not row["passed"]]) == 8
    assert refused["psnr"].startswith("psnr over images labelled '3' is ")
    assert refused["noise_ratio"].endswith("below the bound 1000")
    assert refused["auroc"].endswith("could not be computed: no such images, or the data it needs are missing")
    assert {"error_at_noise_20", "false_alarm_rate", "effective_dimension"} <= set(refused)
    assert [path.name for path in Path(first["pushed"]).parent.iterdir()] == [Path(first["pushed"]).name]
    assert document["paths"]["serve it"].endswith(f"autoencoder serve {root / 'digits'}")  # what was pushed before


def check_signatures_of_a_calibrated_model(pushed, calibration):
    """p-values and thresholds at a caller's rate, against the recorded held-out scores."""
    import tensorflow as tf

    from trainer.scoring.calibration import conformal_threshold

    model = tf.saved_model.load(pushed)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    images, held_out = tf.constant([buffer.getvalue()] * 2), np.array(calibration["scores"], np.float32)
    scored = model.signatures["serving_default"](image_bytes=images)
    expected = (1 + np.sum(held_out >= scored["score"].numpy()[0])) / (len(held_out) + 1)
    assert scored["p_value"].numpy() == pytest.approx([expected] * 2)
    at_rates = model.signatures["score_at"](image_bytes=images, false_alarm_rate=tf.constant([0.01, 0.2]))
    assert at_rates["threshold"].numpy() == pytest.approx([conformal_threshold(held_out, r) for r in (0.01, 0.2)])
    assert np.array_equal(at_rates["is_anomaly"].numpy(), at_rates["score"].numpy() > at_rates["threshold"].numpy())


def test_another_rate_and_score_do_not_train_again(digits):
    root, first = digits
    changed = ["--rate", "0.05", "--score", "latent_distance", "--set", f"root={root}", "--json"]
    code, stdout, stderr = autoencoder("calibrate", "configs/digits.yaml", *changed)
    assert code == DONE, stderr
    document = json.loads(stdout)
    assert names_that("cached", document) == COMPONENTS[:6]
    assert document["metrics"]["mean_error"] == first["metrics"]["mean_error"]
    record = json.loads(Path(document["pushed"], "assets.extra/autoencoder.json").read_text())
    assert (record["calibration"]["score"], record["calibration"]["false_alarm_rate"]) == ("latent_distance", 0.05)
    assert len(record["calibration"]["scores"]) == record["calibration"]["images"] == 197
    check_signatures_of_a_calibrated_model(document["pushed"], record["calibration"])


def test_a_gate_that_would_bless_an_untrained_model_fails_the_run(digits):
    root, _ = digits
    waived = ("evaluation.thresholds=[]", "evaluation.max_pca_ratio=null", "evaluation.max_regression=null")
    code, document = run("configs/digits.yaml", root, *waived)
    assert code == FAILED
    assert states(document)["Evaluator"] == "failed"
    assert states(document)["Pusher"] == "skipped"
    assert "untrained, constant" in document["error"]


def test_a_model_worse_than_the_latest_blessed_one_is_refused(digits):
    root, first = digits
    code, document = run("configs/digits.yaml", root, "trainer.epochs=30", "evaluation.thresholds=[]")
    assert code == REFUSED
    assert names_that("ran", document) == COMPONENTS[5:]
    refused = [row for row in document["thresholds"] if not row["passed"]]
    assert [(row["metric"], row["origin"]) for row in refused] == [("mean_error", "baseline")]
    assert refused[0]["max"] == pytest.approx(1.05 * first["metrics"]["mean_error"])


def test_the_report_shows_the_newest_run_and_any_past_one_can_be_rebuilt(digits, tmp_path):
    root, _ = digits
    folder = root / "digits"
    refused, _ = run("configs/digits.yaml", root, "evaluation.thresholds=[{metric: mean_error, max: 0.000001}]")
    assert refused == REFUSED
    assert "Refused: mean_error over all images is" in (folder / "report.html").read_text()
    code, stdout, _ = autoencoder("report", folder)
    assert (code, stdout) == (DONE, f"{folder / 'report.html'}\n")

    listed = json.loads(autoencoder("runs", "--root", root, "--json")[1])["digits"]
    run_id = listed[-1]["run_id"]
    code, stdout, _ = autoencoder("report", "configs/digits.yaml", "--set", f"root={root}", "--run-id", run_id)
    written = Path(stdout.strip()).read_bytes()
    assert b"Blessed: the model meets all 4 bounds" in written
    code, stdout, _ = autoencoder("report", folder, "--run-id", run_id, "--rebuild")
    assert code == DONE
    assert Path(stdout.strip()).read_bytes() == written
    assert Path(stdout.strip()) == folder / "reports" / run_id / "report.html"

    code, _, stderr = autoencoder("report", tmp_path)
    assert (code, stderr.splitlines()[-1]) == (
        BAD_USAGE,
        f"{tmp_path} holds no run; start one with: autoencoder run",
    )


def test_past_runs_are_listed_with_their_verdicts(digits):
    root, first = digits
    code, stdout, _ = autoencoder("runs", "--root", root, "--json")
    listed = json.loads(stdout)["digits"]
    assert code == DONE
    assert listed[-1]["verdict"] == "blessed"
    assert listed[-1]["mean_error"] == pytest.approx(first["metrics"]["mean_error"])
    assert listed[-1]["pushed"] == first["pushed"]
    assert listed[-1]["seconds"] > 0
    [examples] = (root / "digits/artifacts/ImageExampleGen/examples").glob("[0-9]*")
    shutil.rmtree(examples)
    (root / "other").mkdir()
    (root / "other" / "metadata.sqlite").write_bytes(b"no database" * 1000)
    code, stdout, stderr = autoencoder("runs", "--root", root, "--json")
    shutil.rmtree(root / "other")
    assert (code, json.loads(stdout)["digits"]) == (DONE, listed)  # also without the artifacts
    assert "other/metadata.sqlite is damaged" in stderr


def test_an_edited_model_re_runs_the_trainer_and_what_follows(digits, tmp_path):
    root, _ = digits
    for package in ("schema", "runtime", "images", "components", "trainer", "pipeline", "serving", "configs"):
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    with (tmp_path / "trainer/families/registry.py").open("a") as file:
        file.write("# edited\n")
    _, document = run("configs/digits.yaml", root, "evaluation.max_regression=null", cwd=tmp_path)
    assert names_that("cached", document) == COMPONENTS[:5]
    assert states(document)["Trainer"] == states(document)["Evaluator"] == "ran"


def test_several_products_run_in_one_process_and_the_worst_decides(digits, tmp_path):
    root, document = digits
    cap = tmp_path / "cap.yaml"
    cap.write_text(f"name: cap\ndata: {{source: folder, path: {tmp_path / 'nowhere'}}}\n")
    try:
        code, stdout, _ = autoencoder("run", cap, "configs/digits.yaml", "--json", "--set", f"root={root}")
        found = json.loads(stdout)
        page = (root / "index.html").read_text()
        models = (root / "models.config").read_text()
        pictures = json.loads((root / "digits" / "thumbnails.json").read_text())
    finally:
        shutil.rmtree(root / "cap")
        for file in ("index.html", "index.json", ".index.json.lock", "models.config"):
            (root / file).unlink(missing_ok=True)
    assert code == FAILED
    failed, repeated = found["products"]
    assert failed["error"].startswith(f"{tmp_path / 'nowhere'}: no such folder")
    assert repeated["blessed"]
    assert names_that("ran", repeated) == []
    assert repeated["metrics"] == document["metrics"]
    assert repeated["drift"] == {"since": None, "changes": {}}
    assert found["index"] == [str(root / "index.html")]
    assert "1 failed" in page
    assert all(picture["original"] in page for picture in pictures)
    assert [picture["title"] for picture in pictures] == ["typical", "worst"]
    assert f'base_path: "{root / "digits" / "serving"}"' in models
