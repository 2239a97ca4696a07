"""Objects are listed whatever others of the same bucket are called."""

import http.client
from urllib.parse import urlsplit

from runtime.object_store import RemotePath

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=someone/20200101/us-east-1/s3/aws4_request"}


def put(endpoint, key):
    """Arrow cannot write a key with an empty folder name."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=10)
    connection.request("PUT", f"/bucket/{key}", b"content", SIGNED)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_key_with_two_slashes_is_skipped_and_named(s3, endpoint, caplog):
    for key in ("slashes/a.png", "slashes//b.png", "slashes/c//d.png", "slashes/c/e.png", "slashes/f/g/h.png"):
        put(endpoint, key)
    found = {name: status.st_size for name, status in RemotePath("s3://bucket/slashes").files_below()}
    assert found == {"a.png": 7, "c/e.png": 7, "f/g/h.png": 7}
    assert caplog.text.count("keys contain // cannot be read and are skipped; rename them") == 2
