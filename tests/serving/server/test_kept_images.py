"""A server keeps images only on request: a bounded sample that only its owner can read."""

import json
import os
import stat
import urllib.request
from base64 import b64encode

import numpy as np
import pytest

from images.formats import IMAGE_SUFFIXES
from runtime.errors import UsageError
from serving.image_files import image_files
from serving.server.kept_images import KeptImages
from serving.server.run import running_server


def keep(folder, images, **bounds):
    kept = KeptImages(folder, **{"rate": 1.0, "max_images": 100, "max_bytes": 10**6, **bounds})
    kept.offer(images, model_name="any")
    kept.close()
    return sorted(folder.iterdir())


def images(count, size=100):
    return [b"\x89PNG" + bytes([number]) * (size - 4) for number in range(count)]


def mode_of(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_only_the_owner_can_read_what_is_kept_whatever_the_umask(tmp_path):
    previous = os.umask(0)
    try:
        [file] = keep(tmp_path / "kept", images(1))
    finally:
        os.umask(previous)
    assert (mode_of(tmp_path / "kept"), mode_of(file)) == ("0o700", "0o600")
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(UsageError, match=r"others may read .*open; run: chmod 700"):
        KeptImages(tmp_path / "open", rate=1.0, max_images=1, max_bytes=1)


def test_the_oldest_give_way_when_there_are_too_many_images_or_bytes(tmp_path):
    files = keep(tmp_path / "many", images(10), max_images=3)
    assert [file.read_bytes() for file in files] == images(10)[-3:]
    files = keep(tmp_path / "large", images(10), max_bytes=450)
    assert [file.read_bytes() for file in files] == images(10)[-4:]
    assert keep(tmp_path / "huge", images(1, size=2000), max_bytes=1000) == []


def test_each_of_several_models_has_a_folder_and_the_one_with_most_images_gives_way(tmp_path):
    kept = KeptImages(tmp_path / "kept", rate=1.0, max_images=5, max_bytes=10**6, has_several_models=True)
    kept.offer(images(2), model_name="cap")
    kept.offer(images(20), model_name="lid")
    kept.close()
    found = {
        folder.name: [file.read_bytes() for file in sorted(folder.iterdir())]
        for folder in (tmp_path / "kept").iterdir()
    }
    assert found == {"cap": images(2), "lid": images(20)[-3:]}
    assert {mode_of(folder) for folder in (tmp_path / "kept").iterdir()} == {"0o700"}
    again = KeptImages(tmp_path / "kept", rate=1.0, max_images=5, max_bytes=450, has_several_models=True)
    again.offer(images(1, size=120), model_name="cap")
    again.close()
    assert sum(file.stat().st_size for file in (tmp_path / "kept").rglob("*.png")) <= 450
    assert len(list((tmp_path / "kept/cap").iterdir())) == 2
    (tmp_path / "kept/lid").chmod(0o755)
    with pytest.raises(UsageError, match=r"others may read .*kept/lid; run: chmod 700 .*kept/lid"):
        KeptImages(tmp_path / "kept", rate=1.0, max_images=1, max_bytes=1, has_several_models=True)


def test_images_that_wait_for_the_disk_are_bounded_in_bytes(tmp_path):
    """Three images of 40 MB arrive faster than one is written; 64 MB may wait."""
    kept = KeptImages(tmp_path / "kept", rate=1.0, max_images=100, max_bytes=10**9)
    kept.offer([character * 40 * 2**20 for character in (b"a", b"b", b"c")], model_name="any")
    kept.close()
    assert 1 <= len(list((tmp_path / "kept").iterdir())) <= 2


def test_a_restarted_server_counts_what_is_there_but_removes_no_other_files(tmp_path):
    keep(tmp_path / "kept", images(5))
    (tmp_path / "kept/notes.txt").write_text("mine")
    files = keep(tmp_path / "kept", images(7), max_images=4)
    assert [file.read_bytes() for file in files if file.suffix == ".png"] == images(7)[3:]
    assert (tmp_path / "kept/notes.txt").exists()


def test_the_same_image_is_kept_once_and_others_by_chance(tmp_path):
    assert len(keep(tmp_path / "same", images(1) * 10)) == 1
    several = [number.to_bytes(4, "big") for number in range(160)]
    kept = keep(tmp_path / "some", several, rate=0.25, max_images=1000)
    assert 15 <= len(kept) <= 64
    assert {file.suffix for file in kept} <= IMAGE_SUFFIXES


def test_a_full_disk_does_not_end_the_server(tmp_path):
    kept = KeptImages(tmp_path / "kept", rate=1.0, max_images=10, max_bytes=10**6)
    (tmp_path / "kept").rmdir()
    kept.offer(images(1), model_name="any")
    kept.close()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["autoencoder", "cap"])
def test_the_server_keeps_what_it_has_answered(name, image_model, settings_for, png, tmp_path):
    """`cap`: in a folder of its own, since a file lists the models."""
    good, more = png(np.full((16, 16), 90)), {}
    if name == "cap":
        entry = f'config {{ name: "cap" base_path: "{image_model}" model_platform: "tensorflow" }}'
        (tmp_path / "models.config").write_text(f"model_config_list {{ {entry} }}")
        more = {"model_base_path": None, "model_config_file": tmp_path / "models.config"}
    settings = settings_for(image_model, keep_images=tmp_path / "kept", keep_rate=1.0, **more)
    with running_server(settings) as address:
        for content in (good, b"no image"):
            body = json.dumps({"instances": [{"b64": b64encode(content).decode()}]}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{address.rest_port}/v1/models/{name}:predict", body)
            try:
                urllib.request.urlopen(request, timeout=30).close()
            except urllib.error.HTTPError as error:
                assert content != good
                error.close()
    [file] = image_files([str(tmp_path / "kept")])
    assert file.read_bytes() == good
    assert file.parent == (tmp_path / "kept/cap" if name == "cap" else tmp_path / "kept")


def test_by_default_nothing_is_kept(image_model, settings_for):
    assert settings_for(image_model).keep_images is None
    with pytest.raises(UsageError, match="--keep-rate 0: must be more than 0"):
        settings_for(image_model, keep_rate=0)
