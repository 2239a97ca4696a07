"""What makes a folder unusable, by its name alone: patterns in paths, and buckets that no store has."""

import re
from typing import Final

_PATTERN: Final = re.compile(r"[*?\[\\]")
_IP_ADDRESS: Final = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_S3_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_S3_RESERVED: Final = re.compile(r"(xn--|sthree-|amzn-s3-demo-).*|.*(-s3alias|--ol-s3|\.mrap|--x-s3|--table-s3)")
_GS_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_GS_PART_BYTES: Final = 63
_S3_RULE: Final = "3 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends"
_GS_RULE: Final = "3 to 63 lower-case letters, digits, '-', '_' and '.', a letter or digit at both ends, without 'goog'"


def pattern_problem(folder: str) -> str:
    """Why TensorFlow cannot read models in a folder of this path; empty if it can."""
    found = sorted(set(_PATTERN.findall(folder)))
    if not found:
        return ""
    return f"the path contains {' and '.join(found)}, which TensorFlow reads as a pattern; choose another folder"


def bucket_problem(uri: str) -> str:
    """Why no store accepts the bucket of an s3://, minio:// or gs:// address; empty for a name that may exist.

    The rules are those of Amazon S3 and Google Cloud Storage.
    """
    scheme, _, path = uri.partition("://")
    bucket = path.partition("/")[0]
    if scheme == "gs":
        is_valid = _GS_NAME.fullmatch(bucket) and all(0 < len(part) <= _GS_PART_BYTES for part in bucket.split("."))
        is_valid = is_valid and not bucket.startswith("goog") and "google" not in bucket
        rule = _GS_RULE
    elif scheme in ("s3", "minio"):
        is_valid = _S3_NAME.fullmatch(bucket) and ".." not in bucket and not _S3_RESERVED.fullmatch(bucket)
        rule = _S3_RULE
    else:
        return ""
    if is_valid and not _IP_ADDRESS.fullmatch(bucket):
        return ""
    return f"{bucket!r} cannot be the name of a bucket, which has {rule}"
