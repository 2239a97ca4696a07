"""The review's server: only its own page, on this machine and with the token, reads or changes anything."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from repository import REPOSITORY
from waiting import wait_until
from web_driver import ARROWS, browsers

from serving.model.prediction import Predictor
from serving.reviewing.app import Queue, local_access, review_app
from serving.reviewing.candidates import SUSPECT, TEST, Candidate
from serving.reviewing.decisions import Subject, digest_of
from serving.reviewing.queue import ReviewQueue
from serving.reviewing.review_folder import ReviewFolder
from serving.reviewing.run import running

TOKEN = "secret"
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"> \"'&.png"


@pytest.fixture
def review(image_model, png, tmp_path):
    """(port, folder of decisions, digests in order) of a review of four images."""
    candidates = []
    for number, name in enumerate(["1.png", "2.png", HOSTILE, "\udcff.png"]):
        pixels = np.full((16, 16), 60.0 * number)
        pixels[4:8, 4:8] = 255
        content = png(pixels)
        subject = Subject(digest=digest_of(content), name=name, label="good")
        known_as = "scratch" if number == 1 else ""
        candidates.append(Candidate(subject=subject, content=content, source=TEST, p_value=0.05, known_as=known_as))
    (tmp_path / "queue").mkdir()
    queue = ReviewQueue(tmp_path / "queue", rate=0.05, limit=10)
    queue.add(candidates, Predictor(image_model / "7"))
    items = sorted(queue.in_order(), key=lambda item: [one.subject for one in candidates].index(item.subject))
    folder = ReviewFolder(tmp_path / "review")
    access, shown = local_access(TOKEN, hint="no token"), Queue(items)
    app = review_app(lambda: shown, folder, access, title="Review of parts", next_step="Run again.")
    with running(app, 0) as port:
        yield port, folder, [item.subject.digest for item in items]


def ask(port, method, path, document=None, **headers):
    """(status, answer); the headers are those of the page itself unless given."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    own = {"Authorization": f"Bearer {TOKEN}", "Host": f"127.0.0.1:{port}"}
    own |= {"Origin": f"http://127.0.0.1:{port}"} if method == "POST" else {}
    sent = {name: value for name, value in {**own, **headers}.items() if value is not None}
    body = document if isinstance(document, bytes) else None if document is None else json.dumps(document)
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = "json" in response.headers.get("Content-Type", "")
    return response.status, json.loads(content) if is_json else content


def decision(digest, decided="normal", reviewer="Anna", **more):
    return {"digest": digest, "decision": decided, "reviewer": reviewer, **more}


def test_the_page_tells_a_suspects_p_value_from_that_of_the_model(image_model, png, people_of, tmp_path):
    """A suspect's is of its place among the training images, while its score is of a model that has learnt it."""
    content = png(np.full((16, 16), 60.0))
    subject = Subject(digest=digest_of(content), name="1.png", label="good", split="train")
    (tmp_path / "queue").mkdir()
    queue = ReviewQueue(tmp_path / "queue", rate=0.05, limit=10)
    queue.add(
        [Candidate(subject=subject, content=content, source=SUSPECT, p_value=0.0032)], Predictor(image_model / "7")
    )
    shown = Queue(queue.in_order())
    access = local_access(TOKEN, hint="no token")
    app = review_app(lambda: shown, ReviewFolder(tmp_path / "review"), access, title="Review", next_step="Run again.")
    with running(app, 0) as port:
        facts = people_of(port)("Anna").text("#facts")
    assert "p-value among the training images 0.00320" in facts


def test_a_decision_reaches_the_manifest(review):
    port, folder, digests = review
    status, queue = ask(port, "GET", "/queue")
    assert status == 200
    assert [item["digest"] for item in queue["items"]] == digests
    assert queue["classes"] == ["defect", "scratch"]
    status, answer = ask(port, "POST", "/decisions", decision(digests[1], "defect", label="dent"))
    assert (status, answer["others"], answer["classes"]) == (200, [], ["defect", "dent", "scratch"])
    assert "dent,,1" in folder.manifest.read_text()
    assert ask(port, "POST", "/decisions", decision(digests[1], reviewer="Ben"))[1]["others"][0]["reviewer"] == "Anna"
    assert ask(port, "GET", "/decisions")[1]["contested"] == [digests[1]]
    assert ask(port, "POST", "/undo", {"reviewer": "Ben"})[1]["withdrawn"]["decision"] == "normal"
    assert ask(port, "GET", "/decisions")[1]["contested"] == []


def test_images_and_maps_are_those_of_the_model(review):
    port, _, digests = review
    assert ask(port, "GET", f"/images/{digests[0]}")[1].startswith(b"\x89PNG")
    answer = ask(port, "GET", f"/maps/{digests[0]}")[1]
    assert np.array(answer["anomaly_map"]).shape == (16, 16)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8510", "Origin": "http://evil.example:8510"}, 403),
    ],
)
def test_a_change_from_another_origin_host_or_without_the_token_is_refused(review, headers, status):
    port, folder, digests = review
    for path, document in (("/decisions", decision(digests[0])), ("/undo", {"reviewer": "Anna"})):
        assert ask(port, "POST", path, document, **headers)[0] == status
    assert not folder.manifest.exists()


@pytest.mark.parametrize("path", ["/queue", "/decisions", "/images/x", "/maps/x"])
def test_nothing_can_be_read_without_the_token_or_under_another_host(review, path):
    port, _, digests = review
    path = path.replace("/x", f"/{digests[0]}")
    assert ask(port, "GET", path, Authorization=None)[0] == 401
    assert ask(port, "GET", path, Host="evil.example")[0] == 403
    assert ask(port, "GET", path)[0] == 200


@pytest.mark.parametrize(
    "path", ["/images/../../../etc/passwd", "/images/%2e%2e%2fetc%2fpasswd", "/images//etc/passwd", "/maps/x", "/etc"]
)
def test_only_images_of_the_review_are_answered(review, path):
    status, answer = ask(review[0], "GET", path)
    assert status == 404
    assert b"root:" not in (answer if isinstance(answer, bytes) else b"")


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"x" * 20_000, 413),
        (decision("../../etc/passwd"), 404),
        (decision(["x"]), 404),
        ({"decision": "normal"}, 404),
    ],
)
def test_malformed_changes_are_refused(review, document, status):
    assert ask(review[0], "POST", "/decisions", document)[0] == status


def test_unsuitable_decisions_and_names_are_refused(review):
    port, folder, digests = review
    for document in (decision(digests[0], "good"), decision(digests[0], reviewer="=cmd"), decision(digests[0], ["x"])):
        status, answer = ask(port, "POST", "/decisions", document)
        assert status == 400
        assert answer["error"]
    assert not folder.manifest.exists()


@pytest.fixture
def people_of(tmp_path):
    """A function of a review's port that returns what `people` is."""
    with ExitStack() as stack:
        open_page = stack.enter_context(browsers(tmp_path / "browsers"))

        def enter(port, name, *size):
            page = open_page(*size)
            page.open(f"http://127.0.0.1:{port}/#token={TOKEN}")
            page.wait_for("document.querySelector('.layers')")
            page.type("#reviewer", name)
            page.click("#who button")
            return page

        yield lambda port: partial(enter, port)


@pytest.fixture
def people(review, people_of):
    """A function that opens the review in a browser of its own: (name, width, height in pixels)."""
    return people_of(review[0])


def shows(name):
    return f"document.querySelector('#name').innerText === {json.dumps(name)} && document.querySelector('.layers')"


def test_a_keyboard_is_enough_and_undo_returns(review, people):
    _, folder, digests = review
    page = people("Anna")
    page.wait_for(shows("1.png"))
    assert page.run("return location.hash") == ""
    page.press("n")
    page.wait_for(shows("2.png"))
    page.press("2")  # the second class is scratch
    page.wait_for(shows(HOSTILE))
    assert page.run("return document.title") == "Review"
    assert page.run("return document.querySelectorAll('#image h2 *').length") == 0
    page.press("z")
    page.wait_for(shows("2.png"))
    page.press(ARROWS["right"])
    page.wait_for(shows(HOSTILE))
    page.press("u", ARROWS["left"])
    page.wait_for(
        "document.querySelector('#progress').innerText.startsWith('2 of 4 decided: 1 normal, 0 defects, 1 unsure')"
    )
    page.press("c")
    page.press(*"nd")  # typing a class decides nothing
    page.click("#new button")
    page.press("d")
    page.wait_for("document.querySelector('#progress').innerText.startsWith('3 of 4')")
    standing = {digest: of_image[-1] for digest, of_image in folder.standing().items()}
    assert sorted((one.decision, one.label) for one in standing.values()) == [
        ("defect", "nd"), ("normal", ""), ("unsure", ""),
    ]  # fmt: skip
    page.press("n")
    page.wait_for("document.querySelector('#done:not([hidden])')")
    assert page.text("#hint") == "All images are decided. Run again."


def test_two_reviewers_at_once_lose_nothing_and_see_each_other(review, people):
    _, folder, digests = review
    anna, ben = people("Anna"), people("Ben", 390, 844)
    for page in (anna, ben):
        page.wait_for(shows("1.png"))
    anna.press("n")
    anna.wait_for(shows("2.png"))
    ben.wait_for("document.querySelector('#notice').innerText.includes('Anna has just decided: normal')")
    ben.press("d")
    ben.wait_for("document.querySelector('#notice').innerText.includes('Anna decided normal; your later decision')")
    assert [one.reviewer for one in folder.standing()[digests[0]]] == ["Anna", "Ben"]
    anna.wait_for("document.querySelector('#progress').innerText.includes('1 contested')")
    assert "defect" in folder.manifest.read_text()


def test_it_fits_a_phone(review, people, tmp_path):
    page = people("Cleo", 390, 844)
    page.wait_for(shows("1.png"))
    assert page.run("return innerWidth") == 390
    assert page.run("return document.documentElement.scrollWidth") <= 390
    sides = page.run(
        "const shown = [...document.querySelectorAll('#choices button, .pictures figure')];"
        "return shown.map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right, box.height]);"
    )
    assert all(left >= 0 and right <= 390 and height >= 32 for left, right, height in sides)
    page.click("#unsure")
    page.wait_for(shows("2.png"))
    page.screenshot(tmp_path / "phone.png")


def test_the_browser_is_opened_without_the_token_among_its_arguments(tmp_path):
    """A program in the place of the browser stores its arguments, and the page that they name."""
    stored, browser = tmp_path / "arguments", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {stored}\n')
    browser.chmod(0o700)
    with tempfile.TemporaryDirectory() as folder:
        code = "import sys; from serving.reviewing.run import open_in_browser as o; from pathlib import Path; "
        code += "o(sys.stdin.read(), Path(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-c", code, folder],
            input=f"http://127.0.0.1:8510/#token={TOKEN}",
            env={**os.environ, "BROWSER": f"{browser} %s"},
            cwd=REPOSITORY,
            text=True,
            check=True,
        )
        wait_until(lambda: stored.exists() and bool(stored.read_text()))
        page = Path(urlsplit(stored.read_text().strip()).path)
        assert page.parent == Path(folder)
        assert TOKEN not in str(page)
        assert f"url=http://127.0.0.1:8510/#token={TOKEN}" in page.read_text()
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
