"""`etude push`: uploads a stage's model from a run folder to the Hugging Face Hub."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .common import open_run, problem

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.store import Store


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude push` to its parser."""
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument(
        "stage", metavar="STAGE", help="a stage, or one of its jobs, such as pretrain.1"
    )
    parser.add_argument(
        "--to", metavar="hf://ORG/NAME", required=True, help="the repository, which is made"
    )
    parser.add_argument(
        "--dtype",
        choices=["fp32", "bf16"],
        default="",
        help="of the weights (default: as the plan exports them)",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        default=".",
        help="of the spec, for a chat template that it names (default: the current folder)",
    )
    parser.add_argument("--public", action="store_true", help="everybody may read it")
    parser.add_argument(
        "--replace", action="store_true", help="add a commit to a repository that is there"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be pushed, and ask nobody"
    )


def run(args: Namespace) -> int:
    from ..compiler.plan.part import NoSuchStage
    from ..runtime.errors import RunError

    opened = open_run(args.folder)
    if opened is None:
        return 1
    try:
        return _push(*opened, args)
    except NoSuchStage as reason:
        problem(reason.message, reason.help)
        return 2
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code


def _push(plan: "Plan", store: "Store", args: Namespace) -> int:
    """Raises: NoSuchStage, RunError"""
    from huggingface_hub import HfApi

    from ..runtime.model_export import export_stage
    from ..runtime.pushing import CARD, card, repository, require_login, upload

    repo, api = repository(args.to), HfApi()
    text = card(plan, args.stage)
    if not args.dry_run:
        require_login(api)
    with TemporaryDirectory(prefix="etude-") as temporary:
        to = Path(temporary) / "model"
        made = export_stage(plan, store, args.stage, to, Path(args.root), args.dtype)
        (made / CARD).write_text(text)
        if not args.dry_run:
            where = upload(api, repo, made, public=args.public, replace=args.replace)
            print(f"pushed: {where}")
            return 0
        print(f"to {repo}, {'public' if args.public else 'private'}:")
        for path in sorted(path for path in made.rglob("*") if path.is_file()):
            print(f"{path.stat().st_size:>15,}  {path.relative_to(made)}")
        print(f"\n==> {CARD} <==\n{text}", end="")
    return 0
