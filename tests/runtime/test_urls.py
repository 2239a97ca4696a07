"""Messages show where a URL leads, but not how to log in."""

import pytest

from runtime.urls import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host:8443/path", "https://host:8443/path"),
        ("https://user:S3cret@host/path?token=S3cret#S3cret", "https://host/path"),
        ("mqtt://user:S3cret@host:bad/x", "mqtt://host:bad/x"),
        ("https://user:S3@cret@host/path", "https://host/path"),
        ("https://host/@team/path", "https://host/@team/path"),
        ("https://user:S3/cret@host/path", "https://…"),
        ("https://user:S3?cret@host/path", "https://…"),
        ("https://user:S3#cret@host/path", "https://…"),
        ("https:/user:S3cret@host/path", "…"),
        ("./stop-belt.sh", "./stop-belt.sh"),
    ],
)
def test_only_scheme_host_and_path_are_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
