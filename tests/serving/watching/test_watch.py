"""`autoencoder watch` as a user starts it, with a real model, killed, interrupted, and on a full disk."""

import io
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from waiting import wait_until
from watching import (
    MqttBroker,
    Receiver,
    Watch,
    Writer,
    json_results,
    mosquitto_program,
    outcome_of,
    recorded,
    watching,
)

from schema.artifacts import RECORD_FILE

pytestmark = pytest.mark.slow
SMALL_DISK_KB = 400


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "camera"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "watch" / "state.sqlite"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver().open()
    yield receiver
    receiver.close()


def test_a_busy_line_survives_a_kill_and_a_webhook_that_is_down(
    place: Path, state: Path, image_model: Path, normal_png: bytes, anomalous_png: bytes, receiver: Receiver
) -> None:
    """50 images a second; the webhook misses some, the watch is killed and started again."""
    options = ["--on-anomaly", f"webhook:{receiver.url}"]
    with watching(place, image_model, state, *options) as watch:
        writer = Writer(place, normal_png, anomalous_png, rate=50, seconds=8)
        writer.start()
        wait_until(lambda: len(recorded(state)) > 50)
        receiver.close()
        wait_until(lambda: len(writer.written) > 200)
        watch.kill()
    receiver.open()
    with watching(place, image_model, state, *options) as watch:
        writer.join()
        wait_until(lambda: len(recorded(state)) == 400, 60)
        wait_until(lambda: len(set(receiver.ids)) == 40, 60)
        assert watch.interrupt() == 0
    outcome = outcome_of(writer.written, state, {"webhook": receiver.bodies})
    assert (outcome.written, outcome.scored, outcome.scored_twice, outcome.lost, outcome.wrong) == (400, 400, 0, 0, 0)
    assert (outcome.delivered, outcome.undelivered) == ({"webhook": 40}, {"webhook": 0})
    assert outcome.delivered_again["webhook"] <= 1


def test_an_event_has_score_regions_and_picture_and_the_metrics_count_it(
    place: Path, state: Path, image_model: Path, normal_png: bytes, anomalous_png: bytes, receiver: Receiver
) -> None:
    alarms = state.parent / "alarms"
    options = ["--on-anomaly", f"webhook:{receiver.url}", "--on-anomaly", f"folder:{alarms}", "--metrics-port"]
    (place / "0.png").write_bytes(anomalous_png)
    (place / "1.png").write_bytes(normal_png)
    (place / "2.png").write_bytes(b"no image")
    port = Receiver().port
    with watching(place, image_model, state, *options, str(port)) as watch:
        wait_until(lambda: len(recorded(state)) == 3, 30)
        wait_until(lambda: len(receiver.bodies) == 1)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert watch.interrupt() == 0
    [event] = receiver.bodies
    assert event["path"] == str(place / "0.png")
    assert (event["score"], event["threshold"], event["model"]) == (0.25, pytest.approx(0.05), "7")
    assert event["regions"][0]["area_percent"] == pytest.approx(100, abs=1)
    [row] = [row for row in json_results(state) if row["verdict"] == "anomaly"]
    assert event.items() >= {name: row[name] for name in row if name not in ("verdict", "problem")}.items()
    assert event["group"] is None
    assert event["overlay"].startswith("data:image/png;base64,iVBOR")
    [file] = alarms.glob("*.json")
    assert json.loads(file.read_text())["id"] == event["id"]
    assert (alarms / json.loads(file.read_text())["overlay"]).read_bytes().startswith(b"\x89PNG")
    assert dict(recorded(state)) == {"0.png": "anomaly", "1.png": "normal", "2.png": "failed"}
    for verdict in ("anomaly", "normal", "failed"):
        assert f'autoencoder_watch_images_total{{verdict="{verdict}"}} 1.0' in page
    assert 'autoencoder_score_per_threshold_count{version="7"} 2.0' in page


def test_every_page_of_a_file_is_scored_if_the_model_takes_all(
    place: Path, state: Path, image_model: Path, normal_png: bytes, anomalous_png: bytes, receiver: Receiver
) -> None:
    model = state.parent.parent / "model" / "7"
    shutil.copytree(image_model / "7", model)
    (model / RECORD_FILE).parent.mkdir(exist_ok=True)
    (model / RECORD_FILE).write_text(json.dumps({"image": {"page": "all"}}))
    pages = [Image.open(io.BytesIO(png)).convert("RGB") for png in (normal_png, anomalous_png, normal_png)]
    written = place.parent / "stack.tif"
    pages[0].save(written, save_all=True, append_images=pages[1:])
    written.rename(place / "stack.tif")
    (place / "z.png").write_bytes(anomalous_png)
    with watching(place, model, state, "--on-anomaly", f"webhook:{receiver.url}") as watch:
        wait_until(lambda: len(receiver.bodies) == 2, 30)
        assert watch.interrupt() == 0
    verdicts = {Path(row["path"]).name: row["verdict"] for row in json_results(state)}
    assert verdicts == {"stack.tif#1": "normal", "stack.tif#2": "anomaly", "stack.tif#3": "normal", "z.png": "anomaly"}
    assert sorted(Path(event["path"]).name for event in receiver.bodies) == ["stack.tif#2", "z.png"]
    assert all(event["overlay"] for event in receiver.bodies)


@pytest.mark.skipif(mosquitto_program() is None, reason="needs mosquitto (Debian's package of that name)")
def test_mqtt_gets_every_anomaly(
    place: Path, state: Path, image_model: Path, anomalous_png: bytes, tmp_path: Path
) -> None:
    broker = MqttBroker(tmp_path)
    try:
        with watching(place, image_model, state, "--on-anomaly", broker.url) as watch:
            for number in range(20):
                (place / f"{number}.png").write_bytes(anomalous_png)
            wait_until(lambda: len(broker.bodies) == 20, 30)
            assert watch.interrupt() == 0
    finally:
        broker.close()
    assert [Path(body["path"]).stem for body in broker.bodies] == [
        name.partition(".")[0] for name, _ in recorded(state)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_scores_what_is_complete_and_delivers_what_waits(
    place: Path, state: Path, image_model: Path, anomalous_png: bytes, receiver: Receiver, number: int
) -> None:
    with watching(place, image_model, state, "--on-anomaly", f"webhook:{receiver.url}") as watch:
        for image in range(200):
            (place / f"{image}.png").write_bytes(anomalous_png)
        wait_until(lambda: len(recorded(state)) > 0)
        watch.process.send_signal(number)
        assert watch.process.wait(60) == 0
        [finished] = watch.events("finished")
    assert len(recorded(state)) == len(receiver.bodies) == 200
    assert (finished["scored"], finished["delivered"], finished["events_waiting"]) == (200, 200, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_KB}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_nothing_for_good(
    place: Path, small_disk: Path, image_model: Path, anomalous_png: bytes, receiver: Receiver
) -> None:
    """The watch waits while the disk is full, and goes on where it was as soon as there is space."""
    state = small_disk / "state.sqlite"
    with watching(place, image_model, state, "--on-anomaly", f"webhook:{receiver.url}") as watch:
        receiver.status = 503  # events pile up on the disk
        for number in range(400):
            (place / f"{number:03d}.png").write_bytes(anomalous_png)
        wait_until(lambda: bool(watch.events("cannot_record")), 60)
        assert watch.process.poll() is None
        subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
        wait_until(lambda: len(recorded(state)) == 400, 60)
        receiver.status = 200
        wait_until(lambda: len(receiver.bodies) >= 400, 90)
        assert watch.events("recorded_again")
        assert watch.interrupt() == 0
    names = [name for name, _ in recorded(state)]
    assert names == [Path(row["path"]).name for row in json_results(state)]
    assert len(set(names)) == len(names) == 400
    assert sorted(Path(body["path"]).name for body in receiver.bodies) == sorted(names)


def test_ctrl_c_on_a_full_disk_says_what_to_do_and_the_next_start_continues(
    place: Path, small_disk: Path, image_model: Path, anomalous_png: bytes
) -> None:
    state = small_disk / "state.sqlite"
    options = ["--on-anomaly", "webhook:http://127.0.0.1:9/"]
    with watching(place, image_model, state, *options) as watch:
        for number in range(400):
            (place / f"{number:03d}.png").write_bytes(anomalous_png)
        wait_until(lambda: bool(watch.events("cannot_record")), 60)
        assert watch.interrupt() == 1
        assert "make space there and start again" in watch.log_file.read_text()
        assert "Traceback" not in watch.log_file.read_text()
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    with watching(place, image_model, state, *options):
        wait_until(lambda: len(recorded(state)) == 400, 60)
    assert len({row["path"] for row in json_results(state)}) == len(json_results(state)) == 400


def test_a_newer_version_is_used_as_soon_as_it_is_pushed(
    place: Path, state: Path, image_model: Path, normal_png: bytes, tmp_path: Path
) -> None:

    base = tmp_path / "model"
    shutil.copytree(image_model / "7", base / "7")
    with watching(place, base, state) as watch:
        (place / "a.png").write_bytes(normal_png)
        wait_until(lambda: len(recorded(state)) == 1)
        shutil.copytree(image_model / "7", base / ".8")
        (base / ".8").rename(base / "8")
        time.sleep(5.5)
        for number in range(2):
            (place / f"b{number}.png").write_bytes(normal_png)
            wait_until(lambda number=number: len(recorded(state)) == 2 + number)
        assert watch.interrupt() == 0
    assert [row["model"] for row in json_results(state)] == ["7", "8", "8"]


def test_an_unreadable_file_is_scored_as_soon_as_it_can_be_read(
    place: Path, state: Path, image_model: Path, normal_png: bytes
) -> None:
    (place / "a.png").symlink_to("/proc/self/mem")  # a regular file that even root cannot read at its start
    with watching(place, image_model, state) as watch:
        wait_until(lambda: bool(watch.events("cannot_read")), 30)
        assert recorded(state) == []
        (place / "a.partial").write_bytes(normal_png)
        (place / "a.partial").replace(place / "a.png")
        wait_until(lambda: recorded(state) == [("a.png", "normal")])
        assert watch.interrupt() == 0


def test_the_metrics_count_what_waits(place: Path, state: Path, image_model: Path, anomalous_png: bytes) -> None:
    receiver = Receiver()
    port = Receiver().port
    options = ["--on-anomaly", f"webhook:{receiver.url}", "--metrics-port", str(port)]
    with watching(place, image_model, state, *options):
        (place / "a.png").write_bytes(anomalous_png)
        line = f'autoencoder_watch_events_waiting{{sink="webhook:{receiver.url}"}} 1.0'
        wait_until(lambda: line in urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())


def test_a_second_watch_with_the_same_state_is_refused(place: Path, state: Path, image_model: Path) -> None:
    with watching(place, image_model, state):
        second = Watch(place, image_model, state)
        assert second.process.wait(60) == 2
        assert "is in use by another `autoencoder watch`" in second.log_file.read_text()
