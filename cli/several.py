"""Runs of several variants of a recipe, one after the other, and what came of them."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import RunError
from .common import problem
from .report import Run, show_runs
from .screen import say
from .work import plan_of, work

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.recorder import OnEvent


def run_variants(args: Namespace) -> int:
    """`etude run SPEC --variant all`: runs a recipe and its variants; returns the exit code."""
    if refused_here("--variant all"):
        return 2
    recipe = plan_of(Namespace(**{**vars(args), "variant": None}))
    if isinstance(recipe, int):
        return recipe
    if not has_all(recipe, args):
        return 1
    found = in_turn(args, [None, *recipe.variants])
    if isinstance(found, int):
        return found
    if not args.json:
        try:
            show_runs(found)
        except RunError as reason:
            problem(reason.message, reason.help)
            return reason.exit_code
    return 0


def has_all(recipe: "Plan", args: Namespace) -> bool:
    """Whether `--variant all` can be said of a recipe; reports it if not."""
    if not recipe.variants:
        problem(f"{args.file} has no variants", "leave out --variant, or write some")
    elif args.variant in recipe.variants:
        problem(
            f"`{args.variant}` stands for all variants, and is also the name of one", "rename it"
        )
    else:
        return True
    return False


def refused_here(what: str) -> bool:
    """Whether this process is one of several ranks, each of which would start all runs; reports
    it."""
    from ..runtime.launchers.allocation import here

    try:
        place = here()
    except RunError as reason:
        problem(reason.message, reason.help)
        return True
    if place is not None and place.world_size > 1:
        problem(f"{what} starts its own ranks", "run it outside of torchrun and srun")
        return True
    return False


def in_turn(args: Namespace, names: Sequence[str | None]) -> list[Run] | int:
    """Runs variants, of which None is the recipe itself: what several of them need is made once,
    by the first of them.

    Returns: the runs; or the exit code of the first that did not end well.
    """
    found = []
    for number, name in enumerate(names, 1):
        if not args.json:
            say(f"{number} of {len(names)}: {name or 'the recipe'}", to=sys.stdout)
        kept: list[tuple[Plan, Path]] = []

        def run(
            plan: "Plan",
            folder: Path,
            root: Path,
            on_event: "OnEvent",
            kept: "list[tuple[Plan, Path]]" = kept,
        ) -> None:
            from ..runtime.gang import execute

            execute(plan, folder, root, on_event)
            kept[:] = [(plan, folder)]

        code = work(
            Namespace(**{**vars(args), "variant": name}),
            run,
            lambda plan, folder: f"done: {folder}",
        )
        if code:
            return code
        from ..runtime.run_folder.store import Store

        ((plan, folder),) = kept
        found.append(Run(name or plan.recipe, plan, Store(folder)))
    return found
