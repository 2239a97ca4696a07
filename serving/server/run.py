"""Starts and stops the local server: the models and the two protocols that serve them."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import tensorflow as tf
from starlette.types import ASGIApp

from runtime.signals import stop_on_signals
from serving.server.access import Certificate, Tokens
from serving.server.grpc import start_grpc_server
from serving.server.http_server import config_of, running_http
from serving.server.kept_images import KeptImages
from serving.server.logs import log_event
from serving.server.rest import rest_app
from serving.server.served_models import ServedModels
from serving.server.service import Service
from serving.server.settings import ListenError, ServerSettings


@dataclass(frozen=True)
class ServerAddress:
    """The address of a running server; a port is None if its protocol is off."""

    host: str
    grpc_port: int | None
    rest_port: int | None


Review = Callable[[ServedModels, KeptImages, Tokens | None], AbstractContextManager[ASGIApp]]
"""The review of kept images, for as long as a server runs; without Tokens it has one of its own."""


@contextlib.contextmanager
def running_server(settings: ServerSettings, review: Review | None = None) -> Iterator[ServerAddress]:
    """Run a server for the duration of the block: it listens on entry, and is drained and closed on exit.

    `review` becomes a tab of the page if images are kept.

    Raises UsageError for unusable tokens, certificates or configurations of models, before it listens.

    It also starts while no version can be loaded, and answers NOT_FOUND until one can, as TensorFlow Serving does. A
    single model is loaded on entry; several are loaded while the server answers, those in demand first.
    Raises ListenError if a port is taken.
    """
    tf.get_logger().setLevel("ERROR")
    models = ServedModels(settings)
    kept = _kept_images(settings)
    service = Service(models, kept)
    tokens = Tokens(settings.token_file) if settings.token_file else None
    certificate = Certificate(settings.tls_cert, settings.tls_key) if settings.tls_cert and settings.tls_key else None
    with contextlib.ExitStack() as stack:
        if kept:
            stack.callback(kept.close)
        models.start()
        stack.callback(models.stop)
        grpc_port = rest_port = None
        if settings.grpc_port is not None:
            grpc_server, grpc_port = start_grpc_server(service, settings, tokens=tokens, certificate=certificate)
            stack.callback(lambda: grpc_server.stop(settings.stop_grace_s).wait())
        if settings.rest_port is not None:
            tab = stack.enter_context(review(models, kept, tokens)) if review and kept else None
            app = rest_app(service, settings, tokens, tab)
            rest_port = stack.enter_context(_running_rest_server(app, settings, certificate))
        address = ServerAddress(settings.host, grpc_port, rest_port)
        served = {"models": len(models.names)} if settings.has_several_models else {"model": settings.model_name}
        access = {"tls": certificate is not None, "tokens": tokens is not None}
        log_event("serving", **served, host=settings.host, grpc=grpc_port, rest=rest_port, **access)
        yield address
        log_event("stopping")


def _kept_images(settings: ServerSettings) -> KeptImages | None:
    if settings.keep_images is None:
        return None
    bounds = {"max_images": settings.keep_at_most, "max_bytes": settings.keep_max_bytes}
    return KeptImages(
        settings.keep_images, rate=settings.keep_rate, has_several_models=settings.has_several_models, **bounds
    )


def serve_until_signalled(
    settings: ServerSettings, review: Review | None = None, started: Callable[[ServerAddress], None] = lambda _: None
) -> None:
    """Serve until SIGINT or SIGTERM, then finish running requests and return; a second signal ends the process.

    `started` is called once the server listens; `review`: as in `running_server`.
    """
    with stop_on_signals() as stop, running_server(settings, review) as address:
        started(address)
        stop.wait()


@contextlib.contextmanager
def _running_rest_server(app: ASGIApp, settings: ServerSettings, certificate: Certificate | None) -> Iterator[int]:
    listener = _listening_socket(settings.host, settings.rest_port or 0)
    config = config_of(
        app,
        header_timeout_s=settings.header_timeout_s,
        max_connections=settings.max_connections,
        stop_grace_s=max(1, round(settings.stop_grace_s)),
        ssl_certfile=certificate.certificate if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    config.load()
    if certificate and config.ssl:
        certificate.answer_with_newest(config.ssl)
    with running_http(config, listener, thread_name="rest") as port:
        yield port


def _listening_socket(host: str, port: int) -> socket.socket:
    # Asyncio disables Nagle's algorithm, a delay of 40 ms per request, only if the protocol is explicit.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Listen now: a client that connects before the thread is ready waits and is served.
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {host}:{port} for REST: {error.strerror}; choose another --rest_api_port or --host"
        ) from error
    return listener
