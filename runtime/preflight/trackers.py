"""Whether the trackers of a recipe are installed, reached and logged in to."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path

from ...compiler.files.urls import shown
from ..errors import RunError
from ..run_folder.trackers import KINDS, lacking, mlflow_client

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""What MLflow's client waits for a server that does not answer, in place of many minutes."""


def require_tracker(kind: str, folder: Path) -> None:
    """Raises: RunError: its library is missing, nobody is logged in, or its server is not reached.

    Args:
        folder: the run folder.
    """
    if kind not in KINDS:
        return
    if importlib.util.find_spec(KINDS[kind].module) is None:
        raise RunError(*lacking(KINDS[kind].module))
    LOOKS[kind](folder)


def _wandb(folder: Path) -> None:
    if os.environ.get("WANDB_MODE") != "online" or os.environ.get("WANDB_API_KEY"):
        return
    try:
        known = netrc().hosts
    except (OSError, NetrcParseError):
        known = {}
    if not any("wandb" in host for host in known):
        raise RunError(
            "WANDB_MODE is online, but nobody is logged in to W&B",
            "log in with `wandb login`, or unset WANDB_MODE to log offline",
        )


def _mlflow(folder: Path) -> None:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if "://" not in uri:
        for module in ("sqlalchemy", "alembic"):
            if importlib.util.find_spec(module) is None:
                raise RunError(*lacking("mlflow"))
        return
    try:
        with _impatient():
            mlflow_client(folder).search_experiments(max_results=1)
    except Exception as reason:  # MLflow has many, of its own and of its stores
        why = shown(str(reason)).strip().splitlines()[:1]
        raise RunError(
            f"MLflow at {shown(uri)} does not answer: {''.join(why)}",
            "start the server, correct MLFLOW_TRACKING_URI, or unset it to log into the run folder",
        ) from None


@contextmanager
def _impatient() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _PATIENCE}
    os.environ.update(_PATIENCE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _trackio(folder: Path) -> None:
    from huggingface_hub import get_token

    if os.environ.get("TRACKIO_SPACE_ID"):
        if get_token() is None:
            raise RunError(
                "TRACKIO_SPACE_ID names a Space, but nobody is logged in to Hugging Face",
                "log in with `hf auth login`, or unset TRACKIO_SPACE_ID to log on this machine",
            )
        return
    server = os.environ.get("TRACKIO_SERVER_URL", "")
    if server and "write_token=" not in server and not os.environ.get("TRACKIO_WRITE_TOKEN"):
        raise RunError(
            "TRACKIO_SERVER_URL names a server, but there is no token to write there",
            "set TRACKIO_WRITE_TOKEN, or unset TRACKIO_SERVER_URL to log on this machine",
        )


LOOKS = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
