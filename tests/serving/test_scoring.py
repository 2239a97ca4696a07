"""Files are scored in order and in bounded memory; a file that cannot be scored is named and affects no other."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from urls import grpc_url, rest_url

from images.heat import heat_colours
from images.reading import Reading
from runtime.errors import UsageError
from serving.client import Score
from serving.errors import ServingError, Status
from serving.image_files import image_files
from serving.model.versions import NoModelError, base_folder, newest_base_folder, saved_model_folder
from serving.overlays import write_overlay
from serving.scoring import lacks_maps, local_scorer, row_of, score_files, server_scorer, with_maps_if_possible
from serving.server.run import ServerAddress


@pytest.fixture
def files(tmp_path: Path, normal_png: bytes, anomalous_png: bytes) -> list[Path]:
    """Ten files: the fourth is not an image, the eighth is truncated, the odd ones are anomalous."""
    for n in range(10):
        (tmp_path / f"{n}.png").write_bytes(anomalous_png if n % 2 else normal_png)
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "7.png").write_bytes(normal_png[:-30])
    return sorted(tmp_path.glob("*.png"))


def test_local_model_and_server_agree_and_skip_broken_files(
    files: list[Path], image_model: Path, image_server: ServerAddress
) -> None:
    """The same scores and problems from the SavedModel, REST and gRPC."""
    missing = files[0].with_name("gone.png")
    for scorer in (
        local_scorer(image_model / "7"),
        server_scorer(rest_url(image_server)),
        server_scorer(grpc_url(image_server)),
    ):
        results = list(score_files([*files, missing], scorer, batch_size=4))
        assert [result.path for result in results] == [*files, missing]
        verdicts = [result.score.is_anomaly if result.score else None for result in results]
        assert verdicts == [False, True, False, None, False, True, False, None, False, True, None]
        assert results[3].problem == "not an image in a supported format"
        assert results[7].problem
        assert results[10].problem == "cannot be read: No such file or directory"


def test_local_model_and_server_find_the_same_regions(
    files: list[Path], image_model: Path, image_server: ServerAddress
) -> None:
    """The same maps and boxes from the SavedModel, REST and gRPC; a score without maps is the same score."""
    images = [files[0].read_bytes(), files[1].read_bytes()]
    plain = local_scorer(image_model / "7")(images)
    local, by_rest, by_grpc = (
        scorer(images)
        for scorer in (
            local_scorer(image_model / "7", with_maps=True),
            server_scorer(rest_url(image_server), with_maps=True),
            server_scorer(grpc_url(image_server), with_maps=True),
        )
    )
    for scores in (by_rest, by_grpc, plain):
        assert [score.score for score in scores] == pytest.approx([score.score for score in local], rel=1e-5)
    for one, other, third in zip(local, by_rest, by_grpc, strict=True):
        assert other.anomaly_map == pytest.approx(one.anomaly_map, rel=1e-5)
        assert third.anomaly_map == pytest.approx(one.anomaly_map, rel=1e-5)
        assert one.regions == other.regions == third.regions
    assert [len(score.regions) for score in local] == [0, 1]
    assert [score.regions for score in plain] == [None, None]


def test_batches_do_not_exceed_their_limits(tmp_path: Path) -> None:
    """Neither in number nor in bytes; a file above the limit is a batch of its own."""
    sizes = [10, 10, 10, 10, 10, 60, 10]
    for n, size in enumerate(sizes):
        (tmp_path / str(n)).write_bytes(bytes(size))
    seen: list[list[int]] = []

    def scorer(images: Sequence[bytes]) -> list[Score]:
        seen.append([len(image) for image in images])
        return [Score(0, 0, 0, False)] * len(images)

    paths = [tmp_path / str(n) for n in range(len(sizes))]
    assert len(list(score_files(paths, scorer, batch_size=3, max_batch_bytes=40))) == len(sizes)
    assert seen == [[10, 10, 10], [10, 10], [60], [10]]


def test_every_page_is_scored_as_if_it_were_a_file(
    normal_png: bytes, anomalous_png: bytes, image_model: Path, tmp_path: Path
) -> None:
    """In order, with its number; also across batches, and between files of one page."""
    pages = [Image.open(io.BytesIO(png)).convert("RGB") for png in (normal_png, anomalous_png, normal_png)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "z.png").write_bytes(anomalous_png)
    paths, scorer = [tmp_path / "stack.tif", tmp_path / "z.png"], local_scorer(image_model / "7")
    results = list(score_files(paths, scorer, reading=Reading(page="all"), batch_size=2))
    assert [row_of(result)["path"] for result in results] == [
        *(f"{tmp_path}/stack.tif#{number}" for number in (1, 2, 3)), f"{tmp_path}/z.png",
    ]  # fmt: skip
    expected = [score.score for score in scorer([normal_png, anomalous_png, normal_png, anomalous_png])]
    assert [result.score.score for result in results if result.score] == expected
    [first, _] = score_files(paths, scorer)
    assert (first.name, first.score and first.score.score) == (f"{tmp_path}/stack.tif", expected[0])


def test_server_failure_stops_the_scoring(tmp_path: Path) -> None:
    """It is not reported as the problem of a file."""
    (tmp_path / "a").write_bytes(b"a")

    def scorer(images: Sequence[bytes]) -> list[Score]:
        raise ServingError(Status.UNAVAILABLE, "gone")

    with pytest.raises(ServingError, match="gone"):
        list(score_files([tmp_path / "a"], scorer))


def test_folder_without_a_model_cannot_be_loaded(tmp_path: Path) -> None:
    """One type of error, whatever TensorFlow raises."""
    with pytest.raises(ServingError, match="cannot be loaded"):
        local_scorer(tmp_path)


def test_images_are_found_by_file_folder_and_pattern(files: list[Path], tmp_path: Path) -> None:
    """A file itself, a folder's images at any depth, a pattern's matches; anything else is an error."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    deep = files[0].rename(tmp_path / "deep" / "er" / "X.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    assert list(image_files([str(tmp_path / "notes.txt")])) == [tmp_path / "notes.txt"]
    assert set(image_files([str(tmp_path)])) == {deep, *files[1:]}
    assert list(image_files([str(tmp_path / "[12].png")])) == files[1:3]
    with pytest.raises(UsageError, match="nowhere"):
        list(image_files([str(tmp_path / "nowhere")]))


def test_folder_name_is_not_a_pattern(normal_png: bytes, tmp_path: Path) -> None:
    """`lot[1]` is the folder of that name, not `lot1` beside it, with or without a trailing slash."""
    for name in ("lot[1]", "lot1", "lot*"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.png").write_bytes(normal_png)
    for name in ("lot[1]", "lot[1]/", "lot*"):
        assert list(image_files([f"{tmp_path}/{name}"])) == [tmp_path / name / "deep" / "a.png"]
    (tmp_path / "lot[1]" / "deep" / "a.png").unlink()
    with pytest.raises(UsageError, match="no image found below it"):
        list(image_files([f"{tmp_path}/lot[1]"]))


def test_linked_folders_hidden_files_and_masks_are_skipped(normal_png: bytes, tmp_path: Path) -> None:
    """Each image is found once, also if links form loops, by folder and by pattern."""
    (tmp_path / "test/crack").mkdir(parents=True)
    (tmp_path / "ground_truth/crack").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    image = tmp_path / "test/crack/a.png"
    for path in (image, tmp_path / "ground_truth/crack/a.png", tmp_path / ".hidden/a.png", tmp_path / ".a.png"):
        path.write_bytes(normal_png)
    (tmp_path / "test/up").symlink_to(tmp_path)
    (tmp_path / "test/crack/again").symlink_to(tmp_path / "test")
    for argument in ("", "/**/*.png", "/**", "/test/**/a.*", "/t*/*/*.png"):
        assert list(image_files([f"{tmp_path}{argument}"])) == [image], argument
    masks = tmp_path / "ground_truth"
    assert list(image_files([str(masks)])) == [masks / "crack/a.png"]


def test_a_pattern_may_follow_a_folder_whose_name_looks_like_one(normal_png: bytes, tmp_path: Path) -> None:
    """What exists is taken literally."""
    for name in ("lot[1]", "lot1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(normal_png)
    assert list(image_files([f"{tmp_path}/lot[1]/*.png"])) == [tmp_path / "lot[1]" / "a.png"]
    assert list(image_files([f"{tmp_path}/lot[12]/*.png"])) == [tmp_path / "lot1" / "a.png"]


def test_heat_is_dark_up_to_the_threshold_and_hot_above_it() -> None:
    """The same value has the same colour in every image."""
    dark, just_below, red, yellow, white, broken = heat_colours(np.array([[0.0, 0.99, 1.0, 2.0, 9.0, np.nan]]))[0]
    assert dark.tolist() == [0, 0, 0]
    assert just_below.max() < 80 < 200 < red[0]
    assert red[1] < yellow[1]
    assert white.tolist() == broken.tolist() == [255, 255, 255]


def test_overlay_is_two_panels_above_a_legend(files: list[Path], image_model: Path, tmp_path: Path) -> None:
    """The image with a box around the region, and the map over the image; both of the requested height."""
    (score,) = local_scorer(image_model / "7", with_maps=True)([files[1].read_bytes()])
    write_overlay(files[1], score, tmp_path / "overlay.png", height_px=32)
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.width >= 64
        assert overlay.height > 32
        assert overlay.getpixel((0, 16)) == overlay.getpixel((16, 31)) == (255, 64, 200)
        assert overlay.getpixel((8, 16)) == (0, 0, 0)
        hot = heat_colours(np.array([[1.25]]))[0, 0]
        assert overlay.getpixel((40, 16)) == pytest.approx(tuple(0.6 * hot), abs=1)


def test_a_model_without_anomaly_maps_is_scored_without_regions(
    files: list[Path], image_model: Path, tmp_path: Path
) -> None:
    """Models of older versions have no such signature."""
    old = tf.saved_model.load(str(image_model / "7"))
    tf.saved_model.save(old, str(tmp_path / "8"), signatures={"serving_default": old.signatures["serving_default"]})
    images = [files[1].read_bytes()]
    with pytest.raises(ServingError, match='"locate" not found') as refused:
        local_scorer(tmp_path / "8", with_maps=True)(images)
    assert lacks_maps(refused.value)
    score = with_maps_if_possible(partial(local_scorer, tmp_path / "8"))
    for _ in range(2):
        [old_score] = score(images)
        assert (old_score.score, old_score.regions) == (0.25, None)
    [new_score] = with_maps_if_possible(partial(local_scorer, image_model / "7"))(images)
    assert len(new_score.regions) == 1


def test_model_folder_may_be_a_run_a_base_or_a_version(tmp_path: Path) -> None:
    """The newest version that holds a model is used; errors name what is missing."""
    for version in ("3", "00000012", "40"):
        (tmp_path / "runs" / "a" / "serving" / version).mkdir(parents=True)
    model = tmp_path / "runs" / "a" / "serving" / "00000012"
    (model / "saved_model.pb").touch()
    assert saved_model_folder(tmp_path / "runs" / "a") == model
    assert saved_model_folder(tmp_path / "runs" / "a" / "serving") == model
    assert saved_model_folder(model) == model
    assert base_folder(tmp_path / "runs" / "a") == model.parent
    assert newest_base_folder(tmp_path / "runs") == model.parent
    with pytest.raises(NoModelError, match="give the folder that holds it"):
        base_folder(model)
    with pytest.raises(NoModelError, match="no version folder"):
        base_folder(tmp_path)
    with pytest.raises(NoModelError, match="no run has pushed"):
        newest_base_folder(tmp_path)
