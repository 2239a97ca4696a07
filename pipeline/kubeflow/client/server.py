"""Connects to Kubeflow Pipelines; error messages never contain credentials."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp  # type: ignore[import-untyped]
import kfp_server_api  # type: ignore[import-untyped]
import urllib3

from runtime.errors import UsageError, UserError

TOKEN_VARIABLE, COOKIES_VARIABLE = "KUBEFLOW_TOKEN", "KUBEFLOW_COOKIES"
_SINGLE_USER_NAMESPACE = "kubeflow"
_MAX_REASON_LENGTH = 300


class ServerError(UserError):
    """The server cannot be reached, or refused the request."""


@dataclass(frozen=True)
class Server:
    """Address and credentials; the representation leaves out the credentials."""

    host: str
    namespace: str | None = None
    token: str | None = field(default=None, repr=False)
    cookies: str | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A kfp.Client that prints nothing and whose errors are raised as ServerError."""
        with _errors_explained(self.host), _quiet():
            # Without a namespace, the client would ask the server whether it has several users.
            yield kfp.Client(
                host=self.host,
                namespace=self.namespace or _SINGLE_USER_NAMESPACE,
                existing_token=self.token,
                cookies=self.cookies,
            )


def read_secret(environment: Mapping[str, str], variable: str, file: Path | None) -> str | None:
    """The content of `file`, or without one the variable's value, if any; raises UsageError for an unreadable file."""
    if file is None:
        return environment.get(variable) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{file}: cannot be read: {reason}; or set {variable} instead") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the links that kfp.Client prints and its warnings about its own version."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(previous)


@contextlib.contextmanager
def _errors_explained(host: str) -> Iterator[None]:
    """Raise kfp's errors as ServerError, without the response's headers, which may hold a session cookie."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        reason = f"{error.status} {error.reason}"
        if error.status in (401, 403):
            reason += f": set {TOKEN_VARIABLE} or {COOKIES_VARIABLE}, and --namespace if Kubeflow has several users"
        elif error.body:
            body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body)
            reason += f": {body[:_MAX_REASON_LENGTH]}"
        raise ServerError(f"{host} answered {reason}") from None
    except TimeoutError:
        raise ServerError(
            f"{host} failed five health checks; check that it is Kubeflow Pipelines and that you may access it "
            f"({TOKEN_VARIABLE}, {COOKIES_VARIABLE}, --namespace)"
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerError(f"{host} cannot be reached ({type(error).__name__}); check the address") from None
