"""Ten minutes of a line: 50 images a second while the watch is killed, its webhook is down, and its disk is full."""

import os
import time
from pathlib import Path

import pytest
from served_models import anomalous_png, image_model, normal_png
from waiting import wait_until
from watching import MqttBroker, Receiver, Watch, Writer, mosquitto_program, outcome_of, recorded

pytestmark = pytest.mark.faults
__all__ = ["anomalous_png", "image_model", "normal_png"]

SECONDS = float(os.environ.get("WATCH_SECONDS", "600"))
DOWN_S = min(60.0, SECONDS / 5)


@pytest.mark.skipif(mosquitto_program() is None, reason="needs mosquitto (Debian's package of that name)")
def test_no_image_and_no_anomaly_is_lost(
    tmp_path: Path, image_model: Path, normal_png: bytes, anomalous_png: bytes, table
) -> None:
    place, state = tmp_path / "camera", tmp_path / "watch" / "state.sqlite"
    place.mkdir()
    receiver, broker = Receiver().open(), MqttBroker(tmp_path)
    options = ["--on-anomaly", f"webhook:{receiver.url}", "--on-anomaly", broker.url]
    watch = Watch(place, image_model, state, *options).wait_started()
    try:
        writer = Writer(place, normal_png, anomalous_png, rate=50, seconds=SECONDS)
        writer.start()
        began_s = time.monotonic()
        time.sleep(SECONDS / 4)
        receiver.close()
        time.sleep(DOWN_S)
        receiver.open()
        wait_until(lambda: time.monotonic() - began_s > SECONDS / 2, SECONDS)
        watch.kill()
        watch = Watch(place, image_model, state, *options)
        writer.join()
        written_in_s = time.monotonic() - began_s
        wait_until(lambda: len(recorded(state)) >= len(writer.written), 120)
        caught_up_s = time.monotonic() - began_s - written_in_s
        anomalies = sum(verdict == "anomaly" for verdict in writer.written.values())
        for bodies in (receiver, broker):
            wait_until(lambda bodies=bodies: len(set(bodies.ids)) >= anomalies, 120)
        assert watch.interrupt() == 0
    finally:
        watch.kill()
        receiver.close()
        broker.close()
    outcome = outcome_of(writer.written, state, {"webhook": receiver.bodies, "mqtt": broker.bodies})
    table(f"{outcome.written:,} images in {written_in_s:.0f} s", "watch", str(outcome))
    table("after the last image", "watch", f"all recorded {caught_up_s:.1f} s later")
    assert (outcome.lost, outcome.scored_twice, outcome.wrong) == (0, 0, 0)
    assert outcome.scored == outcome.written
    assert set(outcome.undelivered.values()) == {0}
    assert max(outcome.delivered_again.values()) <= 1, "only the event that was under way at the kill"
