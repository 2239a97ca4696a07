"""The review as a tab of the server's page: what was kept appears in it, and only token holders see it."""

import json
import shutil
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until
from web_driver import browsers

from runtime.errors import UsageError
from schema.artifacts import RECORD_FILE
from schema.calibration_record import CalibrationRecord
from serving.reviewing.app import Access, local_access
from serving.reviewing.candidates import SUSPECT, Candidate
from serving.reviewing.decisions import Subject, digest_of
from serving.reviewing.tab import Runs, review_tab
from serving.server.run import running_server

TOKEN = "secret"
NO_RUN = Runs(folder_of=lambda versions: None, read=lambda folder: None)


@pytest.fixture
def versions(image_model, tmp_path):
    """A function that adds a calibrated version of the mean-image model to a folder: (folder, number)."""

    def add(folder, number):
        version = Path(shutil.copytree(image_model / "7", folder / f".{number}"))
        calibration = CalibrationRecord(threshold=0.05, false_alarm_rate=0.01, images=200, scores=(0.0,) * 200)
        (version / RECORD_FILE).parent.mkdir(exist_ok=True)
        (version / RECORD_FILE).write_text(json.dumps({"calibration": calibration.to_json()}))
        version.rename(folder / str(number))

    add(tmp_path / "model", 1)
    return add


@pytest.fixture
def serve(settings_for, versions, tmp_path):
    """A context manager that serves the model, keeps every image, and yields the address of the page."""

    @contextmanager
    def serving(runs=NO_RUN, **settings):
        def tab(models, kept, tokens):
            access = Access(check=tokens.check, is_local=False) if tokens else local_access(TOKEN, hint="no token")
            return review_tab(models, kept, access, runs)

        chosen = {"keep_images": tmp_path / "kept", "keep_rate": 1.0, **settings}
        base = None if "model_config_file" in settings else tmp_path / "model"
        with running_server(settings_for(base, **chosen), tab) as address:
            yield f"http://127.0.0.1:{address.rest_port}/"

    return serving


@pytest.fixture
def pictures(png):
    """PNG files, the brighter the stranger."""
    found = []
    for number in range(6):
        pixels = np.full((16, 16), 40.0)
        pixels[4:8, 4:8] = 60 + 35 * number
        found.append(png(pixels))
    return found


def ask(address, path, document=None, **headers):
    """The answer; the headers are those of the page itself unless given."""
    sent = {"Authorization": f"Bearer {TOKEN}", "Origin": address.rstrip("/"), **headers}
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(address + path, body, sent, method="GET" if body is None else "POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def status_of(address, path, document=None, **headers):
    try:
        ask(address, path, document, **headers)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def send(address, content, model="autoencoder", **headers):
    ask(address, f"v1/models/{model}:predict", {"instances": [{"b64": b64encode(content).decode()}]}, **headers)


def queued(address, count, model="autoencoder", **headers):
    """The queue's answer once all images are scored and there are `count`."""

    answers = []

    def is_complete():
        answers.append(ask(address, f"review/{model}/queue", **headers))
        return len(answers[-1]["items"]) == count and answers[-1]["queue"]["scored"] is None

    wait_until(is_complete, timeout_s=60)
    return answers[-1]


def test_what_the_server_kept_is_decided_in_the_tab(serve, pictures, tmp_path):
    with serve() as address:
        for content in pictures[:3]:
            send(address, content)
        items = queued(address, 3)["items"]
        assert {item["digest"] for item in items} == {digest_of(content) for content in pictures[:3]}
        assert all(Path(item["name"]).parent == tmp_path / "kept" and item["source"] == "kept" for item in items)
        sent = {"digest": items[0]["digest"], "decision": "defect", "label": "dent", "reviewer": "Anna"}
        ask(address, "review/autoencoder/decisions", sent)
        send(address, pictures[3])
        assert digest_of(pictures[3]) in {item["digest"] for item in queued(address, 4)["items"]}
    assert "dent,,1" in (tmp_path / "kept/review/reviewed.csv").read_text()
    with serve() as address:  # the copies of decided images are no kept ones
        answer = queued(address, 4)
        assert [one["label"] for one in answer["decisions"][items[0]["digest"]]] == ["dent"]


def test_a_new_version_scores_the_queue_again(serve, pictures, versions, tmp_path):
    with serve() as address:
        send(address, pictures[0])
        number = queued(address, 1)["queue"]["number"]
        assert queued(address, 1)["queue"]["number"] == number
        versions(tmp_path / "model", 2)
        wait_until(lambda: queued(address, 1)["queue"]["number"] > number, timeout_s=30)


def test_the_suspects_of_the_run_appear_too_and_decisions_are_kept_beside_it(serve, pictures, tmp_path):
    class Run:
        normal_label = "good"
        normal_images = (pictures[0],)

        def suspects(self):
            subject = Subject(digest=digest_of(pictures[5]), name="train/5.png", label="good", split="train")
            yield Candidate(subject=subject, content=pictures[5], source=SUSPECT, p_value=0.001)

    with serve(Runs(folder_of=lambda versions: tmp_path / "run", read=lambda folder: Run())) as address:
        send(address, pictures[1])
        answer = queued(address, 2)
        assert {item["name"]: item["source"] for item in answer["items"]}["train/5.png"] == "suspect"
        assert answer["title"] == "Review of run"
        kept = next(item for item in answer["items"] if item["source"] == "kept")
        ask(address, "review/autoencoder/decisions", {"digest": kept["digest"], "decision": "normal", "reviewer": "A"})
    assert ",good,,0," in (tmp_path / "run/review/reviewed.csv").read_text()


def test_a_run_that_cannot_be_read_leaves_what_was_kept(serve, pictures, tmp_path):
    def fail(folder):
        raise UsageError(f"{folder}: no run")

    with serve(Runs(folder_of=lambda versions: tmp_path / "run", read=fail)) as address:
        send(address, pictures[1])
        assert queued(address, 1)["queue"]["problem"] == f"{tmp_path / 'run'}: no run"


def test_each_of_several_models_has_its_own_review(serve, pictures, versions, tmp_path):
    versions(tmp_path / "lids", 1)
    entry = "config {{ name: '{}' base_path: '{}' model_platform: 'tensorflow' }}"
    listed = entry.format("cap", tmp_path / "model") + entry.format("lid", tmp_path / "lids")
    (tmp_path / "models.config").write_text(f"model_config_list {{ {listed} }}")
    with serve(model_config_file=tmp_path / "models.config") as address:
        send(address, pictures[0], "cap")
        send(address, pictures[1], "lid")
        for name, content in (("cap", pictures[0]), ("lid", pictures[1])):
            [item] = queued(address, 1, name)["items"]
            assert item["digest"] == digest_of(content)
            assert Path(item["name"]).parent == tmp_path / "kept" / name
        assert status_of(address, "review/box/queue") == 404


def test_a_model_without_calibration_is_named(serve, tmp_path):
    (tmp_path / "model/1" / RECORD_FILE).unlink()
    with serve() as address:
        wait_until(lambda: ask(address, "review/autoencoder/queue")["queue"]["problem"], timeout_s=30)
        problem = ask(address, "review/autoencoder/queue")["queue"]["problem"]
    assert problem == "version 1 of autoencoder has no calibration: push a calibrated model"


@pytest.mark.parametrize("path", ["queue", "decisions", "images/x", "maps/x"])
def test_only_the_printed_token_opens_the_review_and_only_on_this_machine(serve, pictures, path):
    with serve() as address:
        send(address, pictures[0])
        [item] = queued(address, 1)["items"]
        path = "review/autoencoder/" + path.replace("/x", f"/{item['digest']}")
        assert status_of(address, path, Authorization="") == 401
        assert status_of(address, path, Host="evil.example") == 403
        changes = partial(status_of, address, "review/autoencoder/undo", {"reviewer": "Anna"})
        assert (changes(Origin="http://evil.example"), changes(Authorization="Bearer x"), changes()) == (403, 401, 200)


def test_a_server_with_tokens_accepts_them_for_the_review_too(serve, pictures, tmp_path):
    (tmp_path / "tokens").write_text("operator\n")
    with serve(token_file=tmp_path / "tokens") as address:
        send(address, pictures[0], Authorization="Bearer operator")
        queued(address, 1, Authorization="Bearer operator")
        assert status_of(address, "review/autoencoder/queue") == 401
        assert (
            status_of(address, "review/autoencoder/queue", Authorization="Bearer operator", Host="plant.example") == 200
        )


def test_a_server_that_keeps_nothing_has_no_tab(image_server):
    address = f"http://127.0.0.1:{image_server.rest_port}/"
    assert status_of(address, "review/autoencoder/queue") == 404
    with urllib.request.urlopen(address, timeout=30) as page:
        assert 'id="tabs"' not in page.read().decode()


@pytest.fixture
def windows(tmp_path):
    """A function that opens a browser of its own: (width, height in pixels)."""
    with ExitStack() as stack:
        yield stack.enter_context(browsers(tmp_path / "browsers"))


def shows_picture_of(content):
    return f"state.shown === '{digest_of(content)}' && document.querySelector('.layers')"


def enter(page, name):
    page.wait_for("document.querySelector('.layers')")
    page.type("#reviewer", name)
    page.click("#who button")


def test_the_operators_page_leads_to_the_review_and_back(serve, windows, pictures):
    with serve() as address:
        send(address, pictures[0])
        page = windows()
        page.open(f"{address}#token={TOKEN}")
        page.click("#tabs a")
        enter(page, "Anna")
        assert page.text("#title") == "Review of autoencoder"
        page.wait_for(shows_picture_of(pictures[0]))
        send(address, pictures[1])  # what is kept now must not take the place of the image that is shown
        page.wait_for("document.querySelector('#progress').innerText.startsWith('0 of 2 decided')")
        assert page.run(f"return Boolean({shows_picture_of(pictures[0])})")
        page.press("d")
        page.wait_for(shows_picture_of(pictures[1]))
        page.press("z")
        page.wait_for(shows_picture_of(pictures[0]))
        page.press("n")
        page.wait_for(shows_picture_of(pictures[1]))
        page.press("u")
        page.wait_for("document.querySelector('#hint').innerText.startsWith('All images are decided.')")
        page.click("#tabs a")
        page.wait_for("document.querySelector('#about').innerText.startsWith('Model autoencoder, version 1')")


def test_two_people_review_at_once_one_of_them_on_a_phone(serve, windows, pictures, tmp_path):
    with serve() as address:
        for content in pictures[:2]:
            send(address, content)
        first = queued(address, 2)["items"][0]["digest"]
        anna, ben = windows(), windows(390, 844)
        for page, name in ((anna, "Anna"), (ben, "Ben")):
            page.open(f"{address}#token={TOKEN}")
            page.click("#tabs a")
            enter(page, name)
            page.wait_for(f"state.shown === '{first}'")
        assert ben.run("return document.documentElement.scrollWidth") <= 390
        anna.press("n")
        ben.wait_for("document.querySelector('#notice').innerText.includes('Anna has just decided: normal')")
        ben.press("d")
        anna.wait_for("document.querySelector('#progress').innerText.includes('1 contested')")


def test_the_review_asks_for_the_servers_token(serve, windows, pictures, tmp_path):
    (tmp_path / "tokens").write_text("operator\n")
    with serve(token_file=tmp_path / "tokens") as address:
        send(address, pictures[0], Authorization="Bearer operator")
        page = windows()
        page.open(f"{address}review/autoencoder/")
        page.wait_for("document.querySelector('#token')")
        page.type("#token", "operator")
        page.click("#login button")
        enter(page, "Anna")
        page.wait_for(shows_picture_of(pictures[0]))
        assert page.run("return document.querySelector('#login').hidden")
