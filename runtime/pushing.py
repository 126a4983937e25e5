"""Pushes a stage's model to the Hugging Face Hub, with a card that says how it was made."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..compiler.as_written import counted
from ..compiler.files.store_errors import without_secrets
from ..compiler.plan.exports import export_of
from ..compiler.plan.plan import Plan, TrainJob
from .errors import RunError

CARD = "README.md"
_REPOSITORY = re.compile(r"hf://([\w.-]+/[\w.-]+)/?")


def repository(url: str) -> str:
    """The repository in a URL `hf://org/name`.

    Raises: RunError: the URL names none.
    """
    found = _REPOSITORY.fullmatch(url)
    if found is None:
        raise RunError(
            f"`{url}` names no repository on the Hub", "write --to hf://ORGANIZATION/NAME"
        )
    return found[1]


def card(plan: Plan, stage: str) -> str:
    """The model card: facts about the recipe, in Markdown.

    Raises: NoSuchStage: the plan has no such stage, or the stage makes no model.
    """
    jobs = list(_trained(plan, export_of(plan, stage).inputs["model"]))
    stages: dict[str, tuple[int, int]] = {}
    for job in reversed(jobs):
        steps, tokens = stages.get(str(job.stage), (0, 0))
        stages[str(job.stage)] = steps + (job.steps or 0), tokens + (job.tokens or 0)
    total = sum(tokens for _, tokens in stages.values())
    recipe = f"`{plan.recipe}`" + (f", variant `{plan.variant}`" if plan.variant else "")
    lines = [
        "---",
        "library_name: transformers",
        "tags:",
        "- etude",
        "---",
        "",
        f"# {plan.title or plan.recipe}",
        "",
        f"The model after the stage `{stage}` of the recipe {recipe}, trained on "
        f"{counted(total, 'tokens')}.",
        "",
        "| stage | steps | tokens |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {steps:,} | {tokens:,} |" for name, (steps, tokens) in stages.items()),
        "",
    ]
    for name, values in plan.values.items():
        if name.startswith("model."):
            lines += [f"| `{name.removeprefix('model.')}` | |", "| --- | --- |"]
            told = ((each, of) for each, of in values.items() if each != "weights")
            lines += [f"| {each} | {_cell(of.value)} |" for each, of in told]
            lines.append("")
    lines.append(f"Made with etude {version('etude')}.")
    return "\n".join(lines) + "\n"


def _trained(plan: Plan, key: str) -> Iterator[TrainJob]:
    """The train jobs behind a model, the last first."""
    jobs: dict[str, Any] = {job.key: job for job in plan.jobs}
    job = jobs.get(key)
    while job is not None:
        if isinstance(job, TrainJob):
            yield job
        before = job.inputs.get("model") or job.inputs.get("of.0")
        job = jobs.get(before or "")


def _cell(value: str) -> str:
    return without_secrets(value).replace("|", "\\|").replace("\n", " ")


def require_login(api: Any) -> str:
    """The user who pushes; called before the model is made.

    Raises: RunError: nobody is logged in, or the Hub cannot be reached.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise RunError(
            "nobody is logged in to the Hugging Face Hub here",
            "run `hf auth login`, or set HF_TOKEN; --dry-run needs neither",
        )
    return str(_ask("tell who you are", api.whoami)["name"])


def upload(api: Any, repo: str, folder: Path, *, public: bool, replace: bool) -> str:
    """Creates a repository and uploads a folder to it in one commit; returns its URL.

    Args:
        api: HfApi of huggingface_hub, which finds the token itself.
        public: whether everybody may read the repository.
        replace: whether it may exist already; a new commit then replaces its files.

    Raises: RunError.
    """
    made = _ask(f"make {repo}", lambda: api.create_repo(repo, private=not public, exist_ok=replace))
    _ask(
        f"take the files of {repo}",
        lambda: api.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            commit_message=f"Push a model with etude {version('etude')}",
        ),
    )
    return str(made)


def _ask(what: str, call: Any) -> Any:
    """Calls the Hub; the library lets any network exception through.

    Raises: RunError.
    """
    try:
        return call()
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message, help = {
            401: ("it does not know the token", "log in again: `hf auth login`"),
            403: (
                "the token does not allow that",
                "use one that may write there: `hf auth login`, or HF_TOKEN",
            ),
            409: (
                "there is a repository of that name",
                "name another, or say --replace to add a commit to it",
            ),
        }.get(
            status or 0,
            (
                without_secrets(reason),
                "look whether this machine has a network and HF_HUB_OFFLINE is not set; where it "
                "has none, `etude export` writes the folder, and `hf upload` pushes it elsewhere",
            ),
        )
        raise RunError(f"the Hub does not {what}: {message}", help) from error
