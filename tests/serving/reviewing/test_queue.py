"""Candidates are scored by the model, once per content, and only the most informative are kept."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import tensorflow as tf
from served_models import MeanImage

from runtime.errors import UsageError
from schema.artifacts import RECORD_FILE
from schema.usual_sizes import UsualSizes
from serving.model.prediction import Predictor
from serving.reviewing.candidates import FOLDER, SUSPECT, TEST, WATCH, Candidate, contested, in_folder, watched
from serving.reviewing.decisions import Subject, digest_of
from serving.reviewing.queue import ReviewQueue
from serving.reviewing.review_folder import ReviewFolder

SIZE = 16


def candidate(content, name="a.png", source=TEST, **known):
    return Candidate(subject=Subject(digest=digest_of(content), name=name), content=content, source=source, **known)


@pytest.fixture(scope="module")
def predictor(image_model):
    return Predictor(image_model / "7")


@pytest.fixture(scope="module")
def pictures(png):
    """PNG files with means from 0 to 0.9, each with one bright block."""
    found = []
    for number in range(10):
        pixels = np.full((SIZE, SIZE), 25.5 * number)
        pixels[:4, :4] = 255
        found.append(png(pixels))
    return found


def queue(predictor, folder, candidates, *, limit=100, known=(), decided=frozenset()):
    folder.mkdir(exist_ok=True)
    made = ReviewQueue(folder, rate=0.05, limit=limit)
    made.add_known(known, predictor)
    made.add(candidates, predictor, decided=decided)
    return made.in_order(decided)


def test_an_item_has_what_the_model_answers(predictor, pictures, tmp_path):
    [item] = queue(predictor, tmp_path / "q", [candidate(pictures[0])])
    pixels = np.zeros((SIZE, SIZE))
    pixels[:4, :4] = 1
    assert item.score == pytest.approx(pixels.var(), abs=1e-4)
    assert item.latent == pytest.approx([pixels.mean()], abs=1e-4)
    assert item.file.read_bytes() == pictures[0]
    assert item.is_anomaly == (pixels.var() > 0.05)
    assert item.latent.base is None  # a view would keep the whole batch in memory


def test_an_image_of_an_unusual_size_has_a_warning(image_model, pictures, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(image_model / "7", model)
    (model / RECORD_FILE).parent.mkdir(exist_ok=True)
    (model / RECORD_FILE).write_text(json.dumps({"sizes": asdict(UsualSizes.of([(64, 64)]))}))
    [item] = queue(Predictor(model), tmp_path / "q", [candidate(pictures[0])])
    assert item.size_warning.startswith("the image has 16 x 16 pixels, but training images have at least 64 x 64:")
    [item] = queue(Predictor(image_model / "7"), tmp_path / "r", [candidate(pictures[0])])
    assert item.size_warning == ""


class Variants(MeanImage):
    """Sees dark and bright variants of a product."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def reconstruct(self, image_bytes):
        scores = self.scores(self.decoded(image_bytes))
        return {**scores, "group": tf.where(scores["latent"][:, 0] > 0.5, "bright", "dark")}


class Large(MeanImage):
    """Has maps of 1040 x 1040, 0 but for one pixel."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def reconstruct(self, image_bytes):
        scores = self.scores(self.decoded(image_bytes))
        place = tf.scatter_nd([[800, 100]], [4.0], [1040, 1040])
        maps = self.maps(scores)
        return {**scores, **maps, "anomaly_map": tf.zeros_like(scores["error"])[:, None, None] + place}


def test_large_maps_are_reduced_to_the_maximum_of_each_block(pictures, tmp_path):
    module = Large()
    signatures = {"serving_default": module.serving_default, "reconstruct": module.reconstruct}
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    [item] = queue(Predictor(tmp_path / "model"), tmp_path / "q", [candidate(pictures[1])])
    assert item.anomaly_map.shape == (347, 347)
    assert np.argwhere(item.anomaly_map == 4.0).tolist() == [[800 // 3, 100 // 3]]
    assert item.place == (2, 0)


def test_what_a_camera_shows_gets_the_label_of_the_group_that_the_model_sees(pictures, tmp_path):
    module = Variants()
    signatures = {"serving_default": module.serving_default, "reconstruct": module.reconstruct}
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    given = [
        candidate(pictures[1], "dark.png", WATCH),
        candidate(pictures[9], "bright.png", FOLDER),
        candidate(pictures[8], "test.png", TEST),
    ]
    found = queue(Predictor(tmp_path / "model"), tmp_path / "q", given)
    assert {item.subject.name: (item.group, item.subject.label) for item in found} == {
        "dark.png": ("dark", "dark"),
        "bright.png": ("bright", "bright"),
        "test.png": ("bright", ""),
    }
    assert {item.place for item in found} == {None}  # a model without maps has no regions


def test_the_same_bytes_are_one_image_and_unreadable_ones_none(predictor, pictures, tmp_path):
    suspect = candidate(pictures[0], "train/1.png", SUSPECT, p_value=0.01)
    broken = candidate(b"\x89PNG broken", "broken.png")
    found = queue(predictor, tmp_path / "q", [suspect, candidate(pictures[0]), broken, candidate(pictures[1])])
    assert {(item.subject.name, item.source) for item in found} == {("train/1.png", SUSPECT), ("a.png", TEST)}
    assert {item.subject.name: item.p_value for item in found}["train/1.png"] == 0.01


def test_the_nearest_to_the_threshold_and_all_suspects_are_kept(predictor, pictures, tmp_path):
    p_values = [0.9, 0.8, 0.04, 0.06, 0.7, 0.05, 0.001, 0.6, 0.5, 0.4]
    given = [
        candidate(content, f"{number}.png", SUSPECT if number == 0 else TEST, p_value=p_values[number])
        for number, content in enumerate(pictures)
    ]
    found = queue(predictor, tmp_path / "q", given, limit=3)
    assert {item.subject.name for item in found} == {"0.png", "2.png", "3.png", "5.png"}
    assert {path.stem for path in (tmp_path / "q").iterdir()} == {item.subject.digest for item in found}


def test_misses_false_alarms_and_suspects_are_the_most_informative(predictor, pictures, tmp_path):
    given = [
        candidate(pictures[0], "threshold.png", p_value=0.06),
        candidate(pictures[1], "clear.png", p_value=0.001),
        candidate(pictures[2], "miss.png", p_value=0.9, known_as="dent"),
        candidate(pictures[3], "false alarm.png", p_value=0.001, is_known_normal=True),
        candidate(pictures[4], "found.png", p_value=0.002, known_as="dent"),
        candidate(pictures[5], "usual.png", p_value=0.9, is_known_normal=True),
    ]
    found = {item.subject.name for item in queue(predictor, tmp_path / "q", given, limit=3)}
    assert found == {"threshold.png", "miss.png", "false alarm.png"}


def test_decided_images_come_last_and_like_calibrating_ones_are_not_new(predictor, pictures, tmp_path):
    given = [candidate(content, f"{number}.png", p_value=0.05) for number, content in enumerate(pictures)]
    decided = frozenset({given[9].subject.digest})
    found = [
        item.subject.name for item in queue(predictor, tmp_path / "q", given, known=[pictures[0]], decided=decided)
    ]
    assert found[-1] == "9.png"
    assert found[-2] == "0.png"  # has been seen, and is therefore the least new
    assert found[0] in ("4.png", "5.png")  # the farthest from both


def test_the_results_of_a_watch_are_read_from_beside_its_state_file(tmp_path, pictures):
    camera = tmp_path / "camera"
    camera.mkdir()
    lines = []
    for number, (content, p_value) in enumerate(zip(pictures, [0.5, 0.04, 0.06, None, 0.3, 0.9], strict=False)):
        (camera / f"{number}.png").write_bytes(content)
        verdict = "anomaly" if p_value == 0.04 else "normal"
        lines.append({"path": str(camera / f"{number}.png"), "verdict": verdict, "p_value": p_value})
    lines.append({"path": str(camera / "broken.png"), "verdict": "failed", "p_value": None})
    (camera / "2.png").unlink()
    for number, part in enumerate((lines[:4], lines[4:]), 1):
        file = tmp_path / f"watch[1]-{number:06d}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in part) + '{"path": "being writ')
    found = list(watched(tmp_path / "watch[1].sqlite", label="good", rate=0.05, at_most=4))
    assert [one.subject.name for one in found] == [str(camera / f"{number}.png") for number in (1, 4, 0)]
    assert {one.subject.label for one in found} == {"good"}
    with pytest.raises(UsageError, match="there are no results"):
        list(watched(tmp_path / "other.sqlite", label="", rate=0.05, at_most=4))


def test_a_folder_gives_its_images_and_a_review_what_is_contested(tmp_path, pictures):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/1.png").write_bytes(pictures[1])
    assert [one.content for one in in_folder(tmp_path / "kept", label="")] == [pictures[1]]
    (tmp_path / "kept/2.png").write_bytes(pictures[2])
    found = in_folder(tmp_path / "kept", label="")
    assert next(found).content == pictures[1]
    (tmp_path / "kept/2.png").unlink()  # as a server does
    assert list(found) == []
    folder = ReviewFolder(tmp_path / "review")
    one, two = (Subject(digest=digest_of(content), name="x.png", label="good") for content in pictures[:2])
    folder.decide(one, "normal", reviewer="Anna", content=pictures[0])
    folder.decide(one, "defect", reviewer="Ben", content=pictures[0])
    folder.decide(two, "defect", reviewer="Ben", content=pictures[1])
    assert [(found.subject, found.content) for found in contested(folder)] == [(one, pictures[0])]
