"""URLs of object stores, in specs and on command lines.

A plan holds the URLs of its data, and a run folder holds the plan. So a URL with a password or a
signature is refused where it is read; stores are asked with credentials from their own places.
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
"""Object stores: the scheme of their URLs → the package that reads them, and etude's extra."""
__all__ = ["SCHEMES", "has_secret", "in_store", "is_url", "scheme", "secret", "shown"]


def is_url(text: str) -> bool:
    """Whether a text names something by a URL, not by a path."""
    return "://" in text


def scheme(url: str) -> str:
    """What stands before `://`; of URLs in a chain, as in `zip::s3://…`, of the last."""
    return url.partition("://")[0].rpartition("::")[2].lower()


def in_store(text: str) -> bool:
    """Whether a text is a URL of an object store."""
    return is_url(text) and scheme(text) in SCHEMES


def secret(url: str, what: str) -> tuple[str, str]:
    """Message and help for a URL that has a secret in it."""
    return (
        f"the URL `{shown(url)}`, of {what}, has a user, a password or a signature in it",
        "remove it: credentials come from the store's own places, such as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or ~/.aws",
    )
