"""An overlay's picture of the image is what the model sees."""

from pathlib import Path

import numpy as np
from PIL import Image

from images.regions import Placement
from serving.client import Score
from serving.overlays import write_overlay


def test_the_camera_s_rotation_is_applied(tmp_path: Path) -> None:
    """Its left half is dark once it is upright."""
    upright = np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 64, axis=0), 32, axis=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees to view
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=exif)
    placement = Placement.on_map((64, 64), (64, 64), is_padded=False)
    score = Score(0, 0, 1, False, anomaly_map=np.zeros((64, 64), np.float32), placement=placement)
    write_overlay(tmp_path / "a.png", score, tmp_path / "overlay.png", height_px=64)
    original = np.asarray(Image.open(tmp_path / "overlay.png").convert("L"))[:64, :64]
    assert (original[:, :28].max(), original[:, 36:].min()) == (0, 255)


def test_the_legend_has_room_beside_a_narrow_image(tmp_path: Path) -> None:
    """Its last letters are as far to the right as in the overlay of a wide image."""
    ends = []
    for width_px in (16, 640):
        Image.new("L", (width_px, 128)).save(tmp_path / "a.png")
        placement = Placement.on_map((128, width_px), (64, 64), is_padded=False)
        score = Score(0, 0, 1, False, anomaly_map=np.zeros((64, 64), np.float32), placement=placement)
        write_overlay(tmp_path / "a.png", score, tmp_path / "overlay.png", height_px=128)
        text = np.asarray(Image.open(tmp_path / "overlay.png").convert("L"))[136:]
        ends.append(int(np.flatnonzero(text.max(axis=0))[-1]))
    assert ends[0] == ends[1] > 200


def test_the_overlay_of_a_line_of_pixels_is_not_huge(tmp_path: Path) -> None:
    Image.new("L", (4000, 4)).save(tmp_path / "a.png")
    placement = Placement.on_map((4, 4000), (64, 64), is_padded=False)
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[20:40, 20:40] = 2
    score = Score(0, 0, 1, True, anomaly_map=anomaly_map, placement=placement)
    write_overlay(tmp_path / "a.png", score, tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert max(overlay.size) == 2 * 8 * 256
