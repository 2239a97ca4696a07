"""Events reach a real HTTP server, a real MQTT broker, a command and a folder; failures are temporary or final."""

import base64
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until
from watching import MqttBroker, Receiver, mosquitto_program

from runtime.errors import UsageError
from serving.watching.delivery import Delivery
from serving.watching.metrics import WatchMetrics
from serving.watching.results import Position
from serving.watching.sinks import DeliveryError, RefusedError, sink_of
from serving.watching.state import DELIVERED, REFUSED, Event, State

PNG = b"\x89PNG picture"
needs_mosquitto = pytest.mark.skipif(
    mosquitto_program() is None, reason="needs mosquitto (Debian's package of that name)"
)


def event(number: int = 1, overlay: bytes = PNG) -> Event:
    document = {"event": "anomaly", "id": f"id{number}", "path": "/camera/part 1.png", "score": 2.5, "regions": []}
    return Event(number, "sink", json.dumps(document), overlay)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver().open()
    yield receiver
    receiver.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MqttBroker]:
    broker = MqttBroker(tmp_path)
    yield broker
    broker.close()


def data_url(overlay: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(overlay).decode()}"


def test_a_webhook_gets_the_event_with_its_picture_and_the_login(receiver: Receiver) -> None:
    sink = sink_of(f"webhook:http://line:s%40cret@127.0.0.1:{receiver.port}/alarm?line=1")
    sink.deliver(event())
    assert receiver.bodies == [{**json.loads(event().event), "overlay": data_url(PNG)}]
    headers = receiver.headers[0]
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"line:s@cret").decode()
    assert headers["Idempotency-Key"] == "id1"
    assert "cret" not in sink.name


@pytest.mark.parametrize(("status", "error"), [(400, RefusedError), (413, RefusedError), (404, DeliveryError)])
def test_a_webhook_that_answers_with_an_error(receiver: Receiver, status: int, error: type[Exception]) -> None:
    receiver.status = status
    with pytest.raises(error, match=str(status)):
        sink_of(f"webhook:{receiver.url}").deliver(event())


def test_a_webhook_that_is_down_is_not_available() -> None:
    with pytest.raises(DeliveryError, match="refused"):
        sink_of(f"webhook:{Receiver().url}").deliver(event())


@needs_mosquitto
def test_mqtt_gets_the_event_also_after_the_broker_was_restarted(broker: MqttBroker) -> None:
    sink = sink_of(broker.url)
    sink.deliver(event(1))
    wait_until(lambda: broker.ids == ["id1"])
    broker.stop()
    with pytest.raises(DeliveryError):
        sink.deliver(event(2))
    broker.restart()
    sink.deliver(event(2, overlay=b""))
    wait_until(lambda: set(broker.ids) == {"id1", "id2"})
    assert broker.bodies[0]["overlay"] == data_url(PNG)
    assert broker.bodies[-1]["overlay"] is None
    sink.close()


def test_a_command_reads_the_event_and_the_picture(tmp_path: Path) -> None:
    program = tmp_path / "alarm.py"
    program.write_text(
        "import json, pathlib, sys\n"
        "event = json.load(sys.stdin)\n"
        "pathlib.Path(sys.argv[1]).write_bytes(pathlib.Path(event['overlay']).read_bytes() + event['id'].encode())\n"
    )
    target = tmp_path / "got it"
    sink_of(shlex.join([sys.executable, str(program), str(target)])).deliver(event())
    assert target.read_bytes() == PNG + b"id1"


def test_a_command_that_fails_is_tried_again_with_its_message() -> None:
    sink = sink_of(shlex.join([sys.executable, "-c", "import sys; sys.exit('siren is off')"]))
    with pytest.raises(DeliveryError, match="exit status 1: siren is off"):
        sink.deliver(event())


def test_a_folder_gets_a_file_and_a_picture_once_however_often_it_is_delivered(tmp_path: Path) -> None:
    sink = sink_of(f"folder:{tmp_path / 'alarms'}")
    for number in (1, 2, 2):
        sink.deliver(event(number))
    names = sorted(path.name for path in (tmp_path / "alarms").iterdir())
    stems = [f"{number:09d}-part 1" for number in (1, 2)]
    assert names == sorted(f"{stem}{suffix}" for stem in stems for suffix in (".json", ".png"))
    document = json.loads((tmp_path / "alarms" / f"{stems[0]}.json").read_text())
    assert (tmp_path / "alarms" / document["overlay"]).read_bytes() == PNG


@pytest.mark.parametrize(
    "text",
    [
        "webhook:ftp://host", "webhook:http://", "webhook:http://host:port/", "mqtt://host", "mqtt://host/a/#",
        "no-such-program --now", "", "'",
    ],
)  # fmt: skip
def test_what_is_no_receiver_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(UsageError, match="--on-anomaly"):
        sink_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "webhook:ftp://user:S3cret@host", "webhook:https://user:S3cret@host:bad/", "webhook:https://user:S3cret/x@host/",
        "webhook:https://host:bad/?token=S3cret", "webhook:https://host/?token=S3cret x", "webhook:user:S3cret@host",
        "mqtt://user:S3cret@host:bad/x", "mqtt://user:S3cret@host", "mqtt:/user:S3cret@host/x",
        "https://user:S3cret@host/", "no-such-program https://user:S3cret@host/", "run 'https://user:S3cret@host/",
    ],
)  # fmt: skip
def test_a_refusal_shows_no_password(text: str) -> None:
    with pytest.raises(UsageError) as error:
        sink_of(text)
    assert "S3cret" not in str(error.value)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state", "/camera")
    yield state
    state.close()


def queue(state: State, sink: str, *numbers: int) -> None:
    events = [(sink, event(number).event, PNG) for number in numbers]
    state.record([], events, Position(), max_queued_bytes=10**6)


def test_events_wait_for_a_receiver_that_is_down_and_arrive_in_order(state: State) -> None:
    receiver = Receiver()
    delivery = Delivery(sink_of(f"webhook:{receiver.url}"), state, WatchMetrics())
    queue(state, delivery.sink.name, 1, 2)
    delivery.start()
    time.sleep(0.7)
    queue(state, delivery.sink.name, 3)
    delivery.wake()
    assert state.waiting_events() == {delivery.sink.name: 3}
    receiver.open()
    try:
        wait_until(lambda: receiver.ids == ["id1", "id2", "id3"])
        delivery.stop(10)
    finally:
        receiver.close()
    assert state.waiting_events() == {}
    assert state.counts()[DELIVERED] == 3


def test_a_refused_event_does_not_block_the_next(state: State, receiver: Receiver) -> None:
    receiver.status = 400
    delivery = Delivery(sink_of(f"webhook:{receiver.url}"), state, WatchMetrics())
    queue(state, delivery.sink.name, 1)
    delivery.start()
    wait_until(lambda: state.counts()[REFUSED] == 1)
    receiver.status = 200
    queue(state, delivery.sink.name, 2)
    delivery.wake()
    wait_until(lambda: receiver.ids == ["id2"])
    delivery.stop(10)
    assert (state.counts()[REFUSED], state.counts()[DELIVERED]) == (1, 1)


def test_stopping_delivers_what_waits_but_does_not_wait_for_a_receiver_that_is_down(state: State) -> None:
    delivery = Delivery(sink_of(f"webhook:{Receiver().url}"), state, WatchMetrics())
    queue(state, delivery.sink.name, 1)
    delivery.start()
    began_s = time.monotonic()
    delivery.stop(30)
    assert time.monotonic() - began_s < 5
    assert state.waiting_events() == {delivery.sink.name: 1}
