"""The web application of a review: the queue, images, maps, and decisions, for whoever has its token."""

import hmac
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from images.decoding import picture_of
from runtime.errors import UsageError
from schema.features import shown_name
from schema.signatures import ANOMALY_MAP, IS_PADDED, SMALLEST_REGION
from serving.errors import ServingError, Status
from serving.reviewing.candidates import SUSPECT, TEST
from serving.reviewing.decisions import DEFECT, Decision, is_contested
from serving.reviewing.queue import Item
from serving.reviewing.review_folder import DecisionError, ReviewFolder
from serving.server.pages import HEADERS, page_text

PAGE: Final = "page.html"
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_MAX_BODY_BYTES: Final = 16 * 1024
_SHOWN_AS_THEY_ARE: Final = b"\xff\xd8"
"""How JPEG begins, which every browser shows; whatever else is converted."""
_NO_SUCH_IMAGE: Final = "no such image in this review"
_NOT_KEPT: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Answer = Callable[[Request], Any]


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may see the images and decide: everything but the page itself, which holds no data, needs a token."""

    check: Callable[[str | None], None]
    """Gets the header `Authorization`; raises ServingError (UNAUTHENTICATED) without an accepted token."""
    is_local: bool
    """Whether to refuse a request that names another host than this machine (DNS rebinding)."""


def local_access(token: str, *, hint: str) -> Access:
    """Only from this machine, with the header `Authorization: Bearer TOKEN`; `hint`: where to find the token."""

    def check(authorization: str | None) -> None:
        given = (authorization or "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
            raise ServingError(Status.UNAUTHENTICATED, hint)

    return Access(check=check, is_local=True)


@dataclass(frozen=True)
class Queue:
    """What the page shows: images in this order, and what is wrong, if anything."""

    items: Sequence[Item] = ()
    number: int = 0
    """Differs after every change of the items."""
    scored: int | None = None
    """How many images were scored so far; None once all were."""
    problem: str = ""


def review_app(
    queue: Callable[[], Queue], folder: ReviewFolder, access: Access, *, title: str, next_step: str, tabs: str = ""
) -> Starlette:
    """The ASGI application for the items of `queue`; decisions go to `folder`.

    A change is refused if it comes from a page of another origin (CSRF). `next_step` tells what to do once all images
    are decided; `tabs` is HTML that leads to the other pages of the same server.
    """
    api = _Api(queue, folder, title, next_step)
    page = page_text("serving.reviewing", PAGE, TABS=tabs)

    def check_host(request: Request) -> None:
        if access.is_local and urlsplit(f"//{request.headers.get('host', '')}").hostname not in LOOPBACK:
            raise HTTPException(403, f"this review answers only requests to {' or '.join(LOOPBACK)}")

    async def show_page(request: Request) -> Response:
        check_host(request)
        return Response(page, media_type="text/html", headers=HEADERS)

    def checked(answer: Answer) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            check_host(request)
            access.check(request.headers.get("authorization"))
            if request.method == "POST":
                _require_same_origin(request)
                request.state.document = await _document(request)
            found = await run_in_threadpool(answer, request)
            return found if isinstance(found, Response) else _json(found)

        return respond

    return Starlette(
        routes=[
            Route("/", show_page, methods=["GET"]),
            Route("/queue", checked(api.queue), methods=["GET"]),
            Route("/decisions", checked(api.decisions), methods=["GET"]),
            Route("/images/{digest}", checked(api.image), methods=["GET"]),
            Route("/maps/{digest}", checked(api.map), methods=["GET"]),
            Route("/decisions", checked(api.decide), methods=["POST"]),
            Route("/undo", checked(api.undo), methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _refused,
            ServingError: _unauthenticated,
            FileNotFoundError: _left,
            UsageError: _unusable,
            DecisionError: _unrecorded,
        },
    )


class _Api:
    def __init__(self, queue: Callable[[], Queue], folder: ReviewFolder, title: str, next_step: str) -> None:
        self._queue = queue
        self._folder = folder
        self._about = {"title": title, "next_step": next_step}

    def queue(self, request: Request) -> dict[str, Any]:
        queue = self._queue()
        return {**self._about, "items": [_shown(item) for item in queue.items], **self._standing(queue)}

    def decisions(self, request: Request) -> dict[str, Any]:
        return self._standing(self._queue())

    def _standing(self, queue: Queue) -> dict[str, Any]:
        """The decisions that stand, the latest of each image at the end, the classes in use, and the queue's state."""
        standing = self._folder.standing()
        of_data = {item.known_as for item in queue.items} - {""}
        used = {one.label for of_image in standing.values() for one in of_image if one.decision == DEFECT}
        return {
            "decisions": {digest: [_told(one) for one in of_image] for digest, of_image in standing.items()},
            "contested": [digest for digest, of_image in standing.items() if is_contested(of_image)],
            "classes": sorted({DEFECT} | of_data | used),
            "queue": {"number": queue.number, "scored": queue.scored, "problem": queue.problem},
        }

    def image(self, request: Request) -> Response:
        content = self._item(request).file.read_bytes()
        if content.startswith(_SHOWN_AS_THEY_ARE):
            return Response(content, media_type="image/jpeg", headers=_NOT_KEPT)
        pixels = picture_of(content)
        picture = BytesIO()
        Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0]).save(picture, "PNG", compress_level=1)
        return Response(picture.getvalue(), media_type="image/png", headers=_NOT_KEPT)

    def map(self, request: Request) -> dict[str, Any]:
        item = self._item(request)
        values = [[_number(x) for x in row] for row in item.anomaly_map.tolist()] if item.has_map else None
        return {ANOMALY_MAP: values, IS_PADDED: int(item.is_padded), SMALLEST_REGION: item.smallest_region}

    def decide(self, request: Request) -> dict[str, Any]:
        document = request.state.document
        item = self._known(document.get("digest"))
        made, others = self._folder.decide(
            item.subject,
            document.get("decision"),
            reviewer=document.get("reviewer"),
            label=document.get("label", ""),
            content=item.file.read_bytes(),
            mask=item.mask,
        )
        return {"made": _told(made), "others": [_told(one) for one in others], **self.decisions(request)}

    def undo(self, request: Request) -> dict[str, Any]:
        withdrawn = self._folder.undo(request.state.document.get("reviewer"))
        return {"withdrawn": withdrawn and _told(withdrawn), **self.decisions(request)}

    def _item(self, request: Request) -> Item:
        return self._known(request.path_params["digest"])

    def _known(self, digest: Any) -> Item:
        """A client names an image by its digest, never by a path."""
        found = next((item for item in self._queue().items if item.subject.digest == digest), None)
        if found is None:
            raise HTTPException(404, _NO_SUCH_IMAGE)
        return found


def _shown(item: Item) -> dict[str, Any]:
    numbers = {name: _number(getattr(item, name)) for name in ("score", "threshold", "p_value")}
    about = {
        name: getattr(item, name)
        for name in ("source", "group", "known_as", "is_known_normal", "is_anomaly", "has_map", "size_warning")
    }
    name = shown_name(item.subject.name) if item.source in (TEST, SUSPECT) else item.subject.name
    subject = {"digest": item.subject.digest, "name": name, "split": item.subject.split}
    return {**subject, **about, **numbers}


def _told(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("number", "time", "reviewer", "digest", "decision", "label")}


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _json(document: Any, status_code: int = 200) -> Response:
    # ASCII: a file's name may not be valid Unicode.
    return Response(json.dumps(document), status_code, media_type="application/json", headers=_NOT_KEPT)


def _require_same_origin(request: Request) -> None:
    origin = urlsplit(request.headers.get("origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc != request.headers.get("host", ""):
        raise HTTPException(403, "a change must come from the page of this review itself")


async def _document(request: Request) -> dict[str, Any]:
    """The JSON object in the body."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, "the request is too large", {"Connection": "close"})
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise HTTPException(400, "send a JSON object")
    return document


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


async def _unauthenticated(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return _json({"error": error.message}, error.status.http_status)


async def _left(request: Request, error: Exception) -> Response:
    """The image left the queue while it was requested."""
    return _json({"error": _NO_SUCH_IMAGE}, 404)


async def _unusable(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


async def _unrecorded(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 507)
