"""Explains errors of an object store or its library: what is wrong, and what to do about it.

Every file system has its own errors, which are recognized by their names and codes: referring to
their classes would import libraries that may not be installed.
"""

import os
from typing import NamedTuple

from .urls import SCHEMES, scheme, shown

_MISSING_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
}
_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "InvalidToken",
    "InvalidClientTokenId",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ResourceNotFoundError", "InvalidBucketName"}
_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "503", "500", "429"}
_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectionClosedError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ServerDisconnectedError",
    "ClientOSError",
    "HTTPClientError",
    "ServiceRequestError",
    "SSLError",
}
_PLACES = {
    "s3": "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, `aws configure`, or a role "
    "of the machine",
    "gs": "`gcloud auth application-default login`, or a service account of the machine",
    "az": "the variables AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or `az login`",
}


class Why(NamedTuple):
    """Why something in a store cannot be reached.

    Attributes:
        kind: "package", "credentials", "refused", "bucket", "missing", "unreachable" or "other".
        text: what is wrong, to follow a colon.
        help: what to do about it.
    """

    kind: str
    text: str
    help: str

    @property
    def passes(self) -> bool:
        """Whether the error may go away by itself."""
        return self.kind == "unreachable"


def why(url: str, error: BaseException) -> Why:
    """Why a library could not do what was requested with a URL."""
    chain = list(_chain(error))
    names = {name for each in chain for name in (type(each).__name__, _code(each)) if name}
    extra = SCHEMES.get(scheme(url), ("", ""))[1]
    places = _PLACES.get(extra, "the places that its library looks at")
    bucket = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if any(isinstance(each, ImportError) for each in chain):
        return missing_package(url)
    if names & _MISSING_CREDENTIALS:
        return Why(
            "credentials",
            "there are no credentials for it",
            f"they are taken from {places}",
        )
    if wrong := names & _WRONG_CREDENTIALS:
        word = "have expired" if any("Expire" in name for name in wrong) else "are wrong"
        return Why("credentials", f"the credentials {word}", f"renew them: {places}")
    if names & _NO_BUCKET:
        return Why(
            "bucket",
            f"there is no bucket `{bucket}`",
            "correct the name, or make the bucket; its region and endpoint are those of the "
            "store's own settings, such as AWS_DEFAULT_REGION and AWS_ENDPOINT_URL",
        )
    if names & _BUSY:
        return Why("unreachable", "the store is too busy, or out of order", "try again later")
    if any(isinstance(each, PermissionError) for each in chain) or names & {"AccessDenied", "403"}:
        return Why(
            "refused",
            "access is denied",
            f"ask for the right to list, read and write in `{bucket}`, or use credentials that "
            "have it",
        )
    if names & _UNREACHABLE or any(isinstance(e, ConnectionError | TimeoutError) for e in chain):
        where = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        at = f" at {shown(where)}" if where and extra == "s3" else ""
        return Why(
            "unreachable",
            f"the store{at} does not answer",
            "look whether this machine has a network, and whether the store's endpoint is right",
        )
    if any(isinstance(each, FileNotFoundError) for each in chain):
        return Why("missing", "it is not there", "correct the name")
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return Why("other", without_secrets(said), "look whether it is there and you may read it")


def missing_package(url: str) -> Why:
    """The error that the package for a URL is not installed."""
    package, extra = SCHEMES.get(scheme(url), (scheme(url), ""))
    install = f"pip install 'etude[{extra}]'" if extra else f"install what reads {scheme(url)}://"
    return Why("package", f"it needs the package {package}, which is not installed", install)


def without_secrets(text: str) -> str:
    """The text with any credentials from the environment or from its URLs removed."""
    for name, value in os.environ.items():
        if len(value) > 7 and any(word in name for word in ("SECRET", "TOKEN", "PASSWORD", "_KEY")):
            text = text.replace(value, "…")
    return shown(text)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _code(error: BaseException) -> str:
    """The code in botocore's errors, as the store sent it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return ""
