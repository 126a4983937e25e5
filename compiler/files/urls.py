"""URLs of object stores, in specs and on command lines.

A plan contains the URLs of its data, and a run folder contains the plan. So URLs with a password or
a signature are rejected when they are read; credentials for stores come from their usual places.
"""

from ...spec.urls import has_secret, shown

SCHEMES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "az": ("adlfs", "az"),
    "abfs": ("adlfs", "az"),
    "abfss": ("adlfs", "az"),
}
"""Schemes of object stores' URLs → the package that reads them, and etude's extra."""
__all__ = ["SCHEMES", "has_secret", "in_store", "is_url", "scheme", "secret", "shown"]


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return "://" in text


def scheme(url: str) -> str:
    """What comes before `://`; for chained URLs, as in `zip::s3://…`, in the last one."""
    return url.partition("://")[0].rpartition("::")[2].lower()


def in_store(text: str) -> bool:
    """Whether a text is a URL of an object store."""
    return is_url(text) and scheme(text) in SCHEMES


def secret(url: str, what: str) -> tuple[str, str]:
    """Message and help for a URL that contains a secret."""
    return (
        f"the URL `{shown(url)}`, of {what}, has a user, a password or a signature in it",
        "remove it: credentials come from the store's own places, such as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or ~/.aws",
    )
