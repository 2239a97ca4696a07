"""Decisions are never lost, and the manifest is what `data.source: csv` reads."""

import csv
import json
import os
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from repository import REPOSITORY

from components.settings import DataSettings
from components.sources.registry import plan_source
from runtime.errors import UsageError
from serving.reviewing.decisions import Subject, digest_of, is_contested
from serving.reviewing.review_folder import DecisionError, ReviewFolder


def image(tmp_path, value):
    file = tmp_path / f"{value}.png"
    Image.new("L", (6, 5), value).save(file)
    return file.read_bytes()


@pytest.fixture
def contents(tmp_path):
    return [image(tmp_path, 10 * value) for value in range(5)]


def subject(content, name="camera/1.png", **known):
    return Subject(digest=digest_of(content), name=name, **known)


def rows(folder):
    with folder.manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def history(folder):
    return [json.loads(line) for line in (folder.folder / "history.jsonl").read_text().splitlines()]


def test_the_manifest_is_read_by_the_source_csv_as_it_is(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    mask = image(tmp_path, 255)
    folder.decide(subject(contents[0], label="good", split="train"), "normal", reviewer="Anna", content=contents[0])
    defect = {"reviewer": "Ben", "label": "scratch, deep", "content": contents[1], "mask": mask}
    folder.decide(subject(contents[1], "a/ü=\n1.jpg", split="train"), "defect", **defect)
    folder.decide(subject(contents[2]), "unsure", reviewer="Ben", content=contents[2])
    plan = plan_source(DataSettings(source="csv", path=str(folder.manifest)))
    images = {read.label: read for shard in plan.shards for read in shard.read()}
    assert {(one.label, one.named_split, one.is_anomaly) for one in images.values()} == {
        ("good", "train", 0),
        ("scratch, deep", None, 1),
    }
    assert images["good"].stored.encoded == contents[0]
    assert images["scratch, deep"].mask is not None
    first, second = rows(folder)
    assert (first["reviewer"], first["image_id"], second["image_id"]) == ("Anna", "camera/1.png", "a/ü=\n1.jpg")
    assert first["time"].endswith("+00:00")


def test_the_later_decision_counts_and_both_are_kept(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    one = subject(contents[0])
    assert folder.decide(one, "normal", reviewer="Anna", content=contents[0])[1] == []
    made, others = folder.decide(one, "defect", reviewer="Ben", label="dent", content=contents[0])
    assert [(other.reviewer, other.decision) for other in others] == [("Anna", "normal")]
    assert [(row["is_anomaly"], row["label"], row["contested"]) for row in rows(folder)] == [("1", "dent", "1")]
    assert [line["decision"] for line in history(folder)] == ["normal", "defect"]
    assert is_contested(folder.standing()[one.digest])
    assert folder.decide(one, "defect", reviewer="Anna", label="dent", content=contents[0])[1] == []
    assert rows(folder)[0]["contested"] == "0"
    assert made.number == 2


def test_undo_withdraws_the_own_last_decision_only(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    one, two = subject(contents[0]), subject(contents[1])
    folder.decide(one, "normal", reviewer="Anna", content=contents[0])
    folder.decide(one, "defect", reviewer="Anna", content=contents[0])
    folder.decide(two, "normal", reviewer="Ben", content=contents[1])
    assert folder.undo("Anna").decision == "defect"
    assert [row["is_anomaly"] for row in rows(folder)] == ["0", "0"]
    assert folder.undo("Anna").decision == "normal"
    assert [row["reviewer"] for row in rows(folder)] == ["Ben"]
    assert folder.undo("Anna") is None
    assert len(history(folder)) == 5
    assert ReviewFolder(tmp_path / "review").standing().keys() == {two.digest}


def test_several_threads_and_processes_lose_nothing(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    program = (
        "import sys; from pathlib import Path\n"
        "from serving.reviewing.decisions import Subject\n"
        "from serving.reviewing.review_folder import ReviewFolder\n"
        "folder = ReviewFolder(Path(sys.argv[1]))\n"
        "for n in range(20):\n"
        "    subject = Subject(digest=f'{n:064x}', name=f'{n}.png')\n"
        "    folder.decide(subject, 'defect', reviewer=sys.argv[2], content=b'GIF8', label='dent')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(folder.folder), name], env=environment)
        for name in ("Ben", "Cleo")
    ]
    ours = [Subject(digest=f"{n:064x}", name=f"{n}.png") for n in range(20)]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda one: folder.decide(one, "normal", reviewer="Anna", content=b"GIF8")[0], ours))
    assert [process.wait(60) for process in started] == [0, 0]
    lines = history(folder)
    assert [line["number"] for line in lines] == list(range(1, 61))
    assert {line["number"] for line in lines if line["reviewer"] == "Anna"} == {one.number for one in made}
    last = {line["name"]: line["reviewer"] for line in lines}
    assert {row["image_id"]: row["reviewer"] for row in rows(folder)} == last
    assert len(folder.standing()) == 20


def test_a_line_that_a_killed_process_left_incomplete_is_removed(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    folder.decide(subject(contents[0]), "normal", reviewer="Anna", content=contents[0])
    complete = (folder.folder / "history.jsonl").read_bytes()
    (folder.folder / "history.jsonl").write_bytes(complete + b'{"number": 2, "rev')
    folder.manifest.unlink()
    again = ReviewFolder(tmp_path / "review")
    assert (folder.folder / "history.jsonl").read_bytes() == complete
    assert len(rows(again)) == 1
    again.decide(subject(contents[1]), "normal", reviewer="Anna", content=contents[1])
    assert [line["number"] for line in history(again)] == [1, 2]


def test_a_damaged_history_is_reported_and_left_alone(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    folder.decide(subject(contents[0]), "normal", reviewer="Anna", content=contents[0])
    file = folder.folder / "history.jsonl"
    file.write_bytes(b"what is this\n" + file.read_bytes())
    before = file.read_bytes()
    with pytest.raises(UsageError, match="the line 'what is this' is damaged: remove it"):
        ReviewFolder(tmp_path / "review")
    assert file.read_bytes() == before


def test_a_decision_that_the_disk_refuses_leaves_no_trace(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    folder.decide(subject(contents[0]), "normal", reviewer="Anna", content=contents[0])
    before = (folder.folder / "history.jsonl").read_bytes(), folder.manifest.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[0]) + 50, limits[1]))
    try:
        with pytest.raises(DecisionError, match="cannot be recorded: No space left on device; make room"):
            folder.decide(subject(contents[1]), "normal", reviewer="Anna", content=contents[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ((folder.folder / "history.jsonl").read_bytes(), folder.manifest.read_bytes()) == before
    folder.decide(subject(contents[1]), "normal", reviewer="Anna", content=contents[1])
    assert len(rows(folder)) == len(history(folder)) == 2


def test_only_the_owner_can_read_decisions_and_images(tmp_path, contents):
    folder = ReviewFolder(tmp_path / "review")
    folder.decide(subject(contents[0]), "defect", reviewer="Anna", content=contents[0], mask=contents[1])
    paths = [folder.folder, *folder.folder.rglob("*")]
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in paths if path.is_dir()} == {"0o700"}
    files = [path for path in paths if path.is_file()]
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o600"}
    assert len(files) == 4


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/../../b.png", "..", "/x/<script>.png", "\udcff.png", "a\r,b.png"]
)
def test_a_hostile_name_stays_in_the_folder(tmp_path, contents, name):
    folder = ReviewFolder(tmp_path / "review")
    made, _ = folder.decide(subject(contents[0], name), "normal", reviewer="Anna", content=contents[0])
    assert (folder.folder / made.path).resolve().parent == (folder.folder / "images").resolve()
    assert made.path.removeprefix("images/").replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert len(plan_source(DataSettings(source="csv", path=str(folder.manifest))).shards) == 1


@pytest.mark.parametrize("name", ["", "  ", "=1+1", "@x", "a\nb", "x" * 65, None, 7])
def test_unsuitable_names_are_refused(tmp_path, contents, name):
    folder = ReviewFolder(tmp_path / "review")
    with pytest.raises(UsageError, match="reviewer"):
        folder.decide(subject(contents[0]), "normal", reviewer=name, content=contents[0])
    if name:
        with pytest.raises(UsageError, match="class"):
            folder.decide(subject(contents[0]), "defect", reviewer="Anna", label=name, content=contents[0])
    with pytest.raises(UsageError, match="decision 'good': must be normal, defect, unsure"):
        folder.decide(subject(contents[0]), "good", reviewer="Anna", content=contents[0])
    assert not folder.manifest.exists()
