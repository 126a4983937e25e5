"""`etude export`: writes a stage's model from a run folder into a new folder."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from .common import open_run, problem


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude export` to its parser."""
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument(
        "stage", metavar="STAGE", help="a stage, or one of its jobs, such as pretrain.1"
    )
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        required=True,
        help="where to write the model: a folder, or s3://… and others",
    )
    parser.add_argument(
        "--dtype",
        choices=["fp32", "bf16"],
        default="",
        help="type of the weights (default: as the plan exports them)",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="write the adapters of a stage with `adapter = lora`, as PEFT reads them, in place of "
        "weights with the adapters merged into them",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        default=".",
        help="the spec's folder, for a chat template that it names (default: the current folder)",
    )


def run(args: Namespace) -> int:
    from ..compiler.plan.part import NoSuchStage
    from ..runtime.errors import RunError
    from ..runtime.model_export import export_stage, export_stage_adapter, export_to_store

    if args.adapter and (args.dtype or "://" in args.to):
        what = "a store" if "://" in args.to else "another type"
        problem(
            f"adapters cannot be written in {what}", "write them into a folder, without --dtype"
        )
        return 2

    opened = open_run(args.folder)
    if opened is None:
        return 1
    plan, store = opened
    try:
        if args.adapter:
            made = export_stage_adapter(plan, store, args.stage, args.to)
        else:
            export = export_to_store if "://" in args.to else export_stage
            made = export(plan, store, args.stage, args.to, Path(args.root), args.dtype)
    except NoSuchStage as reason:
        problem(reason.message, reason.help)
        return 2
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
    print(f"exported: {made}")
    return 0
