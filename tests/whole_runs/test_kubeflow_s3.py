"""The object store over the real protocol; see conftest.py."""

from pathlib import Path

from pyarrow import fs as arrow
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.pusher.destination import digest_of, newest_version, push, rollback, versions, withdrawn
from pipeline.kubeflow.simulator.launcher import download, upload


def _model(folder: Path) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index" * 1000)
    return folder


def test_a_model_is_pushed_found_and_removed(s3: arrow.S3FileSystem, tmp_path: Path) -> None:
    destination = "s3://bucket/serving"
    assert newest_version(destination) is None
    assert fileio.listdir(destination) == []
    io_utils.copy_dir(str(_model(tmp_path / "model")), f"{destination}/1")
    assert newest_version(destination) == f"{destination}/1"
    io_utils.copy_dir(f"{destination}/1", str(tmp_path / "back"))
    assert (tmp_path / "back/variables/variables.index").read_bytes() == b"index" * 1000
    fileio.rmtree(f"{destination}/1")
    assert newest_version(destination) is None


def test_an_artifact_travels_without_its_empty_folders(s3: arrow.S3FileSystem, tmp_path: Path) -> None:
    model = _model(tmp_path / "model")
    (model / "assets").mkdir()
    upload(s3, model, "s3://bucket/run/model")
    download(s3, "s3://bucket/run/model", tmp_path / "pod")
    found = {path.relative_to(tmp_path / "pod").as_posix() for path in (tmp_path / "pod").rglob("*")}
    assert found == {"saved_model.pb", "variables", "variables/variables.index"}


def test_what_an_interrupted_upload_left_is_removed_by_a_later_push(s3: arrow.S3FileSystem, tmp_path: Path) -> None:
    destination = "s3://bucket/interrupted"
    model = str(_model(tmp_path / "model"))
    io_utils.copy_dir(model, f"{destination}/1")
    fileio.remove(f"{destination}/1/saved_model.pb")
    io_utils.copy_dir(model, f"{destination}/2")
    kept = push(model, destination, check=lambda folder: None, keep=1)
    assert fileio.listdir(destination) == [str(kept.number)]


def test_a_push_is_rolled_back_listed_and_kept_from_coming_back(s3: arrow.S3FileSystem, tmp_path: Path) -> None:
    destination = "s3://bucket/rolled/back"
    for name in ("earlier", "later"):
        model = _model(tmp_path / name)
        (model / "variables" / "variables.index").write_bytes(name.encode())
        push(str(model), destination, check=lambda folder: None)
    done = rollback(destination, check=lambda folder: None)
    newest, left, returned_to = versions(destination)
    assert (done.left.number, done.returned_to, done.pushed.path) == (left.number, returned_to, newest.path)
    assert newest.digest == returned_to.digest == digest_of(str(tmp_path / "earlier"))
    assert [*withdrawn(destination)] == [left.digest] == [digest_of(str(tmp_path / "later"))]
    assert newest_version(destination) == newest.path
