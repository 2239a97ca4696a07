"""`autoencoder score` and `serve`: output, exit codes, signals, and fast `--help`."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from ports import free_port
from urls import rest_url
from waiting import wait_until

from pipeline.commands.score import score
from pipeline.commands.serve import serve
from schema.artifacts import RECORD_FILE
from schema.usual_sizes import UsualSizes
from serving.client import model_status, score_images, wait_until_ready
from serving.errors import ServingError
from serving.server.run import ServerAddress

SERVE = "import sys; from pipeline.commands.serve import serve; serve(sys.argv[1:])"


@pytest.fixture
def images(tmp_path: Path, normal_png: bytes, anomalous_png: bytes) -> Path:
    """A folder with a normal image, an anomalous one, and a broken one."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in (("a.png", normal_png), ("b.png", anomalous_png), ("c.png", b"no image")):
        (folder / name).write_bytes(data)
    return folder


def test_score_writes_json_lines(images: Path, image_model: Path) -> None:
    """Exit status 0 although one file failed; standard error reports the number of failures."""
    result = CliRunner().invoke(score, [str(images), "--model", str(image_model), "--format", "jsonl"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["verdict"] for row in rows] == ["normal", "anomaly", "failed"]
    assert rows[1] == {
        "path": str(images / "b.png"),
        "verdict": "anomaly",
        "score": 0.25,
        "threshold": pytest.approx(0.05),
        "p_value": None,  # this model does not return it
        "error": 0.25,
        "group": None,  # and no variants
        "regions": [
            {
                "left": 0,
                "top": 0,
                "right": 16,
                "bottom": 16,
                "area_px": 256,
                "area_percent": 100,
                "peak": 1.25,
                "mean": 1.25,
            }
        ],
        "problem": "",
        "warning": "",
        "strongest": None,
    }
    assert result.stderr == "1 of 3 images could not be scored\n"


def test_the_table_explains_an_alarm_without_a_region(
    images: Path, image_model: Path, image_server: ServerAddress
) -> None:
    """Every pixel of the faint halves has an error of 0.1: above the threshold, 0.05, not above the pixels', 0.2."""
    faint = Image.new("L", (16, 16), 208)
    faint.paste(47, (0, 0, 8, 16))
    faint.putpixel((12, 5), 215)
    faint.save(images / "faint.png")
    for where in (("--model", str(image_model)), ("--server", rest_url(image_server))):
        result = CliRunner().invoke(score, [str(images), *where])
        lines = {Path(line.split()[3]).name: line for line in result.stdout.splitlines()[1:]}
        assert lines["faint.png"].startswith("anomaly ")
        explained = [
            name
            for name, line in lines.items()
            if "whole image: no single region stands out, strongest at (12, 5)" in line
        ]
        assert explained == ["faint.png"]


def test_a_name_in_the_table_cannot_control_the_terminal(images: Path, image_model: Path) -> None:
    for name in ("\x1b[1A\nnormal.png", "latin\udce4.png"):
        shutil.copy(images / "b.png", images / name)
    result = CliRunner().invoke(score, [str(images), "--model", str(image_model)])
    assert f"{images}/%1B[1A%0Anormal.png" in result.stdout
    assert f"{images}/latin%E4.png" in result.stdout


def test_the_table_warns_of_images_much_smaller_than_the_training_images(
    images: Path, image_model: Path, tmp_path: Path
) -> None:
    """The verdict stays that of the model."""
    model = tmp_path / "model" / "7"
    shutil.copytree(image_model / "7", model)
    (model / RECORD_FILE).parent.mkdir(exist_ok=True)
    (model / RECORD_FILE).write_text(json.dumps({"sizes": asdict(UsualSizes.of([(64, 64)]))}))
    Image.new("L", (48, 48), 128).save(images / "large.png")
    result = CliRunner().invoke(score, [str(images), "--model", str(model.parent)])
    warned = [Path(line.split()[3]).name for line in result.stdout.splitlines() if "but training images have" in line]
    assert warned == ["a.png", "b.png"]
    assert "(the image has 16 x 16 pixels, but training images have at least 64 x 64: details" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["normal", "anomaly", "failed", "normal"]


def test_score_uses_a_server_and_writes_overlays(images: Path, image_server: ServerAddress, tmp_path: Path) -> None:
    """CSV with a header; one picture for every scored file."""
    overlays = tmp_path / "overlays"
    arguments = [
        str(images),
        "--server",
        rest_url(image_server),
        "--format",
        "csv",
        "--overlays",
        str(overlays),
    ]
    result = CliRunner().invoke(score, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    columns = "path,verdict,score,threshold,p_value,error,group,regions,problem,warning,strongest,overlay"
    assert lines[0] == columns
    assert lines[2].startswith(f"{images / 'b.png'},anomaly,0.25,0.05")
    assert sorted(path.name for path in overlays.iterdir()) == ["000000-a.png", "000001-b.png"]


def test_score_takes_every_page_if_the_model_does(
    normal_png: bytes, anomalous_png: bytes, image_model: Path, tmp_path: Path
) -> None:
    """Each has a line, an overlay, a mask and a COCO image of its own."""
    model = tmp_path / "model" / "7"
    shutil.copytree(image_model / "7", model)
    record = model / RECORD_FILE
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"image": {"page": "all"}}))
    first, second = (Image.open(io.BytesIO(png)).convert("RGB") for png in (normal_png, anomalous_png))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    outputs = ["--overlays", f"{tmp_path}/o", "--masks", f"{tmp_path}/m", "--coco", f"{tmp_path}/coco.json"]
    result = CliRunner().invoke(
        score, [f"{tmp_path}/stack.tif", "--model", str(model.parent), "--format", "jsonl", *outputs]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    names = [f"{tmp_path}/stack.tif#1", f"{tmp_path}/stack.tif#2"]
    assert [(row["path"], row["verdict"]) for row in rows] == list(zip(names, ["normal", "anomaly"], strict=True))
    for folder in ("o", "m"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [
            "000000-stack-1.png",
            "000001-stack-2.png",
        ]
    assert [image["file_name"] for image in json.loads((tmp_path / "coco.json").read_text())["images"]] == [
        "stack.tif#1",
        "stack.tif#2",
    ]
    overlays = [Image.open(tmp_path / "o" / f"00000{n}-stack-{n + 1}.png").getpixel((100, 100)) for n in (0, 1)]
    assert overlays[0] != overlays[1]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_name_the_pictures_that_were_written(
    images: Path, image_model: Path, anomalous_png: bytes, tmp_path: Path, form: str
) -> None:
    """Two files of one name have masks of their own, found by the rows; a failed image has none."""
    (images / "other").mkdir()
    (images / "other" / "b.png").write_bytes(anomalous_png)
    folders = {"overlay": tmp_path / "o", "mask": tmp_path / "m"}
    arguments = [str(images), "--model", str(image_model), "--format", form, "--overlays", str(folders["overlay"])]
    result = CliRunner().invoke(score, [*arguments, "--masks", str(folders["mask"])])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = list(csv.DictReader(lines)) if form == "csv" else [json.loads(line) for line in lines]
    assert [Path(row["path"]).relative_to(images).as_posix() for row in rows] == [
        "a.png",
        "b.png",
        "c.png",
        "other/b.png",
    ]
    for kind, folder in folders.items():
        names = [row[kind] and Path(row[kind]).name for row in rows]
        assert names == ["000000-a.png", "000001-b.png", "" if form == "csv" else None, "000003-b.png"]
        assert all(Path(row[kind]).parent == folder and Path(row[kind]).is_file() for row in rows if row[kind])
    assert [Image.open(row["mask"]).getextrema() for row in rows if row["mask"]] == [(0, 0), (255, 255), (255, 255)]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["parts"], ["good/a.png", "stain/a.png"]),
        (["parts/stain"], ["a.png"]),
        (["../here/parts/stain", "parts/good/a.png"], ["stain/a.png", "good/a.png"]),
        (["parts/*/*.png"], ["good/a.png", "stain/a.png"]),
        (["parts/stain/a.png"], ["a.png"]),
    ],
)
def test_coco_names_files_relative_to_the_folder_that_is_scored(
    image_model: Path,
    normal_png: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    names: list[str],
) -> None:
    """With several arguments, to the deepest folder that contains them all."""
    here = tmp_path / "here"
    for kind in ("good", "stain"):
        (here / "parts" / kind).mkdir(parents=True)
        (here / "parts" / kind / "a.png").write_bytes(normal_png)
    monkeypatch.chdir(here)
    result = CliRunner().invoke(score, [*arguments, "--model", str(image_model), "--coco", "coco.json"])
    assert result.exit_code == 0, result.output
    assert [image["file_name"] for image in json.loads(Path("coco.json").read_text())["images"]] == names


@pytest.mark.parametrize(("form", "escaped"), [("table", "b%FF"), ("csv", "b\\udcff"), ("jsonl", "b\\udcff")])
def test_file_whose_name_is_not_text_is_scored(
    image_server: ServerAddress, tmp_path: Path, normal_png: bytes, form: str, escaped: str
) -> None:
    """Its bytes are escaped, even if standard output uses strict error handling."""
    for name in (b"a.png", b"b\xff.png", b"c.png"):
        (tmp_path / os.fsdecode(name)).write_bytes(normal_png)
    program = "import sys; from pipeline.commands.score import score; score(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "--server", rest_url(image_server), "--format", form],
        env={**_environment(), "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [f"{name}.png" in done.stdout for name in ("a", escaped, "c")] == [True] * 3


def test_overlays_of_files_with_long_names_are_written(
    image_server: ServerAddress, tmp_path: Path, normal_png: bytes
) -> None:
    """Their names are shortened to the file system's limit in bytes and stay unique."""
    folder, overlays = tmp_path / "images", tmp_path / "overlays"
    folder.mkdir()
    for name in ("x" * 249 + "1", "x" * 249 + "2", "ö" * 125):
        (folder / f"{name}.png").write_bytes(normal_png)
    arguments = [str(folder), "--server", rest_url(image_server), "--overlays", str(overlays)]
    result = CliRunner().invoke(score, arguments)
    assert (result.exit_code, result.exception) == (0, None)
    names = sorted(path.name for path in overlays.iterdir())
    assert names == [f"000000-{'x' * 200}.png", f"000001-{'x' * 200}.png", f"000002-{'ö' * 100}.png"]


@pytest.mark.parametrize("option", ["--overlays", "--masks", "--coco"])
def test_a_full_disk_is_reported_with_the_file_and_a_remedy_that_score_has(
    image_server: ServerAddress, tmp_path: Path, normal_png: bytes, option: str
) -> None:
    (tmp_path / "a.png").write_bytes(normal_png)
    target = tmp_path / "written"
    full = target
    if option != "--coco":
        target.mkdir()
        full = target / "000000-a.png"
    full.symlink_to("/dev/full")
    result = CliRunner().invoke(
        score, [str(tmp_path / "a.png"), "--server", rest_url(image_server), option, str(target)]
    )
    assert (result.exit_code, result.stderr) == (
        1,
        f"no space left on a disk ([Errno 28] No space left on device: '{full}'): "
        "free some of it, or write to another disk\n",
    )


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_a_full_disk_behind_standard_output_is_reported(
    image_server: ServerAddress, tmp_path: Path, normal_png: bytes, form: str
) -> None:
    (tmp_path / "a.png").write_bytes(normal_png)
    program = "import sys; from pipeline.commands.score import score; score(sys.argv[1:])"
    arguments = [str(tmp_path), "--server", rest_url(image_server), "--format", form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=_environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("no space left on a disk ([Errno 28] No space left on device: 'standard output')")


def test_beam_returns_the_same_scores(images: Path, image_model: Path, tmp_path: Path) -> None:
    """Sharded JSON Lines contain the same lines, in any order."""
    output = tmp_path / "scores"
    here = CliRunner().invoke(score, [str(images), "--model", str(image_model), "--format", "jsonl"])
    arguments = [str(images), "--model", str(image_model), "--runner", "DirectRunner", "--output", str(output)]
    there = CliRunner().invoke(score, [*arguments, "--beam-arg", "--direct_num_workers=1"])
    assert there.exit_code == 0, there.output
    written = [line for shard in tmp_path.glob("scores-*.jsonl") for line in shard.read_text().splitlines()]
    assert sorted(written) == sorted(here.stdout.splitlines())
    assert "2 images scored, 1 could not be" in there.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["a.png", "--runner", "DirectRunner"], 2, "--runner needs --output"),
        (["a.png", "--output", "scores"], 2, "only with --runner"),
        (["c.png"], 1, "1 of 1 images could not be scored"),
        (["nowhere"], 2, "nowhere: no such file"),
        (["a.png", "--server", "http://127.0.0.1:9", "--model", "."], 2, "exclude each other"),
        (["a.png", "--server", "localhost"], 2, "http://host:port"),
        (["a.png", "--server", "http://127.0.0.1:9"], 1, "cannot be reached"),
    ],
)
def test_score_exit_codes(
    images: Path,
    image_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    message: str,
) -> None:
    """1 if all files or the server failed, 2 if nothing was started."""
    monkeypatch.chdir(images)
    model = [] if "--server" in arguments else ["--model", str(image_model)]
    result = CliRunner().invoke(score, arguments + model)
    assert (result.exit_code, message in result.stderr) == (exit_code, True), result.output


def test_serve_without_a_model_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(serve, [])
    assert (result.exit_code, "no run has pushed a model yet" in result.stderr) == (2, True)


def test_help_imports_no_tensorflow() -> None:
    """Help appears immediately."""
    program = (
        "import sys; from pipeline.commands.score import score; from pipeline.commands.serve import serve\n"
        "for command in (serve, score): command(['--help'], standalone_mode=False)\n"
        "assert not {'tensorflow', 'numpy', 'grpc', 'starlette', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=_environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--rest_api_port" in done.stdout


def test_serve_runs_until_it_is_signalled(image_model: Path, normal_png: bytes) -> None:
    """A whole process answers, logs JSON lines, and exits with status 0 on SIGTERM."""
    rest_port, grpc_port = free_port(), free_port()
    arguments = [str(image_model), "--rest_api_port", str(rest_port), "--port", str(grpc_port), "--own"]
    server = subprocess.Popen([sys.executable, "-c", SERVE, *arguments], stderr=subprocess.PIPE, env=_environment())
    try:
        url = f"http://127.0.0.1:{rest_port}"
        assert wait_until_ready(url, timeout_s=90).version == 7
        assert score_images([normal_png], server=url)[0].is_anomaly is False
    finally:
        server.send_signal(signal.SIGTERM)
        _, stderr = server.communicate(timeout=30)
    assert server.returncode == 0
    events = [json.loads(line)["event"] for line in stderr.splitlines()]
    assert [event for event in events if event != "library_message"] == [
        "version_available",
        "serving",
        "stopping",
        "version_unloaded",
    ]
    with pytest.raises(ServingError):
        model_status(url)


def test_a_server_of_an_empty_model_base_path_waits_for_the_first_version(image_model: Path, tmp_path: Path) -> None:
    rest_port, grpc_port = free_port(), free_port()
    ports = ["--rest_api_port", str(rest_port), "--port", str(grpc_port)]
    arguments = ["--model_base_path", str(tmp_path), *ports, "--own"]
    server = subprocess.Popen([sys.executable, "-c", SERVE, *arguments], stderr=subprocess.DEVNULL, env=_environment())
    try:
        url = f"http://127.0.0.1:{rest_port}"
        wait_until(lambda: _http_status(f"{url}/livez") == 200, 90)
        assert _http_status(f"{url}/readyz") == 503
        shutil.copytree(image_model / "7", tmp_path / ".7.partial")
        (tmp_path / ".7.partial").rename(tmp_path / "7")
        assert wait_until_ready(url, timeout_s=30).version == 7
        assert _http_status(f"{url}/readyz") == 200
    finally:
        server.terminate()
        server.wait()


def _http_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except urllib.error.URLError:
        return 0


def _serve_beside_real_server(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`autoencoder serve` with a program on PATH that prints its arguments in place of TensorFlow Serving."""
    program = folder / "tensorflow_model_server"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-c", SERVE, *arguments],
        env={**_environment(), "PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_tensorflow_serving_on_path_runs_for_all_addresses(image_model: Path, tmp_path: Path) -> None:
    """It receives its own flags."""
    ran = _serve_beside_real_server(tmp_path, str(image_model), "--port", "9000", "--host", "0.0.0.0")
    given = set(ran.stdout.splitlines())
    assert {"--port=9000", f"--model_base_path={image_model}", "--enable_batching=true"} <= given
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "listens on every address; to use it: --host 0.0.0.0"),
        (["--host", "127.0.0.1"], "listens on every address"),
        (["--host", "::1"], "listens on every address"),
        (["--host", "0.0.0.0", "--record-scores", "scores"], "omit --record-scores"),
        (["--host", "0.0.0.0", "--keep-images", "kept"], "omit --keep-images"),
        (["--host", "0.0.0.0", "--max-body-mb", "1"], "omit --max-body-mb"),
        (["--host", "0.0.0.0", "--own"], ""),
    ],
    ids=["default", "127.0.0.1", "::1", "record-scores", "keep-images", "max-body-mb", "own"],
)
def test_tensorflow_serving_does_not_run_if_it_lacks_what_is_requested(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    """Our server runs instead, after a message with the reason; here it exits because of the slash in the name."""
    (tmp_path / "1").mkdir()
    ran = _serve_beside_real_server(tmp_path, str(tmp_path), "--model_name", "a/b", *arguments)
    assert ran.stdout == ""
    assert "must not be empty, '.' or '..', or contain '/'" in ran.stderr
    assert message in ran.stderr
    assert ("is on PATH but" in ran.stderr) == bool(message)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
