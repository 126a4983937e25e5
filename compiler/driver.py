"""The driver: takes a spec through binding and the passes, to findings and a plan.

    analysis = analyse(read(path))
    compiled = compile(analysis)

Commands, the Python API, the language server and the tests all use it. Whatever one of them needs
to be different is an argument of `analyse`, whose description gives the reason.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..spec import syntax as s
from ..spec.findings.diagnostics import Report, Silenced
from ..spec.load import Sources, bound
from ..spec.record import Record
from ..spec.schema import recipe as r
from ..spec.schema.bind import bind
from ..spec.schema.changes import changed
from ..spec.schema.kept import Kept
from .passes import CHECKS, Pass, through
from .program import Claimed, Lowered, Program, Scheduled
from .resolve.borrow import borrow
from .resolve.from_folder import from_folders
from .values import Claim

if TYPE_CHECKING:
    from .files.counts_file import Counts
    from .files.data_files import Matched
    from .plan.plan import Plan


EachVariant = Literal["never", "bound", "always"]


class Analysis(Record):
    """Everything known about a spec before jobs are built.

    Attributes:
        recipe: the spec's declarations with the requested changes; None if binding failed.
        borrowed: the same, plus the stages of variants that it names; None if no passes ran.
        program: the recipe after all passes; None if one of them found an error.
        reached: the program after the last pass that ran, for editors, which show what there is.
        silenced: findings of the passes that the spec allows. Allowed findings about files on one
            machine are only in the report, since a plan is the same on every machine.
        report: all findings.
    """

    recipe: r.Recipe | None
    borrowed: r.Recipe | None = None
    program: Scheduled | None = None
    reached: Program | None = None
    silenced: Sequence[Silenced] = ()
    report: Report

    @property
    def claims(self) -> Sequence[Claim]:
        """The recipe's claims, if the passes got to them."""
        return self.program.claims if isinstance(self.program, Claimed) else ()


class Compiled(Record):
    """A plan, and the program with the plan's jobs."""

    program: Lowered
    plan: "Plan"


def analyse(
    sources: Sources,
    *,
    variant: str = "",
    sets: Sequence[str] = (),
    ranks: int | None = None,
    root: Path | None = None,
    each_variant: EachVariant = "never",
    passes: Sequence[Pass] = CHECKS,
    matched: "Matched | None" = None,
    crashed: Callable[[str], None] | None = None,
) -> Analysis:
    """Binds a spec and takes it through the passes.

    If there are errors, the blocks that they do not affect are still checked.

    Args:
        variant: the variant to apply; "" for none.
        sets: changes on top of it, in the syntax of `--set`.
        ranks: run every stage on this many CPU processes of this machine instead of its cluster.
        root: the folder of the spec, to check the files that it names. None: check none; a
            miniature needs none. What a model leaves to the folder of its weights is read in any
            case, from the folder of the sources.
        each_variant: when to check every variant as well. `etude check` is about the whole spec;
            planning is about one recipe. An editor, which answers after every keystroke, waits
            until the recipe itself can be bound. Errors in a variant do not affect `program`.
        passes: the passes to run. A miniature has no claims, and `verify` shows no advice.
        matched: finds files; an editor caches the results for a while.
        crashed: called in the exception handler with the name of the internal step that failed;
            the other steps continue. An editor then loses one answer instead of its server. None:
            the exception is raised.
    """
    driver = _Driver(sources, variant, sets, ranks, root, passes, matched, crashed)
    return driver.run(each_variant)


def compile(analysis: Analysis) -> Compiled | None:
    """The plan of a recipe; None if the report has an error."""
    from .stages.lower import lower
    from .whole_plan import planned  # not needed for checks

    if analysis.recipe is None or analysis.program is None or analysis.report.failures:
        return None
    program = lower(analysis.program)
    plan = planned(analysis.recipe, program, analysis.claims, analysis.silenced)
    return Compiled(program=program, plan=plan)


def compile_miniature(analysis: Analysis) -> Compiled | None:
    """The plan of a recipe's miniature; None if the report has an error, including new ones."""
    from .miniature import miniature
    from .stages.lower import lower
    from .whole_plan import planned

    report = analysis.report
    if analysis.borrowed is None or analysis.program is None or report.failures:
        return None
    found = miniature(analysis.borrowed, analysis.program, report)
    if found is None:
        return None
    program = lower(found.program)
    plan = planned(found.recipe, program, (), (), found.mapping)
    return Compiled(program=program, plan=plan)


class _Driver:
    """Takes a spec, or some of its blocks, through the passes."""

    def __init__(
        self,
        sources: Sources,
        variant: str,
        sets: Sequence[str],
        ranks: int | None,
        root: Path | None,
        passes: Sequence[Pass],
        matched: "Matched | None",
        crashed: Callable[[str], None] | None,
    ) -> None:
        self.sources = sources
        self.kept = sources.kept or Kept()
        self.variant = variant
        self.sets = sets
        self.ranks = ranks
        self.root = root
        self.passes = passes
        self.matched = matched
        self.crashed = crashed

    def run(self, each_variant: EachVariant = "never") -> Analysis:
        report = Report()
        found = Analysis(recipe=None, report=report)
        with self._step("the spec could not be checked"):
            found = self._whole(report)
        if found.program is None and report.failures:
            with self._step("the blocks without errors could not be checked"):
                self._sound_blocks(report)
        wanted = each_variant == "always" or (each_variant == "bound" and found.recipe is not None)
        if wanted and not self.variant:
            from .check_variants import blocks, check_variants  # most specs have none

            if blocks(self.sources):
                with self._step("the variants could not be checked"):
                    check_variants(self.sources, report, self._of_variant)
        return found

    def _whole(self, report: Report) -> Analysis:
        recipe = bound(self.sources, report, variant=self.variant, sets=self.sets)
        if recipe is None:
            return Analysis(recipe=None, report=report)

        def of_variant(name: str, own: Report) -> r.Recipe | None:
            items = changed(self.sources.items, own, variant=self.variant)
            return self._bound(changed(items, own, variant=name, sets=self.sets), own, variant=name)

        return self._checked(recipe, borrow(recipe, of_variant, report), report)

    def _checked(self, recipe: r.Recipe, borrowed: r.Recipe, report: Report) -> Analysis:
        """Runs the passes on a recipe."""
        borrowed, folders = from_folders(borrowed, self.sources.folder, report)
        folder, counted = self.sources.folder, self._counted(borrowed)
        reached: Program = Program(borrowed, self.ranks, self.kept, folders, folder, counted)
        if not report.failures:
            reached = through(self.passes, reached, report)
        program = reached if isinstance(reached, Scheduled) and not report.failures else None
        silenced = tuple(report.silenced)
        if program and self.root:
            from .files.surroundings import matched, surroundings

            surroundings(program, self.root, report, matched=self.matched or matched)
        return Analysis(
            recipe=recipe,
            borrowed=borrowed,
            program=program,
            reached=reached,
            silenced=silenced,
            report=report,
        )

    def _counted(self, recipe: r.Recipe) -> "Counts":
        """The counts beside the spec, if a stage has a length that depends on them."""
        blocks: list[Any] = [
            block
            for stage in recipe.stages.values()
            for block in (stage.stages.values() if isinstance(stage, r.Rounds) else [stage])
        ]
        if all(getattr(each, "epochs", None) is None for each in blocks):
            return {}
        from .files.counts_file import read_counts

        return read_counts(self.sources.counts)

    def _sound_blocks(self, report: Report) -> None:
        from .isolation.sound_blocks import check_rest  # only needed after errors

        items = changed(self.sources.items, Report(), variant=self.variant, sets=self.sets)
        check_rest(items, report, self)

    def _of_variant(self, variant: str) -> Analysis:
        more = (self.ranks, self.root, self.passes, self.matched, self.crashed)
        return _Driver(self.sources, variant, self.sets, *more).run()

    def _bound(self, items: Sequence[s.Item], report: Report, **more: Any) -> r.Recipe | None:
        changes: Any = {"variant": self.variant, "sets": self.sets} | more
        return bind(items, report, where=self.sources.where, kept=self.kept, **changes)

    def bound(
        self, items: Sequence[s.Item], report: Report, left_out: frozenset[str]
    ) -> r.Recipe | None:
        """The recipe of some blocks of the spec, with its changes applied."""
        return self._bound(items, report, left_out=left_out)

    def borrowed(self, recipe: r.Recipe, items: Sequence[s.Item], report: Report) -> r.Recipe:
        """The recipe of these blocks, plus the stages of variants that it names."""

        def of_variant(name: str, own: Report) -> r.Recipe | None:
            return self._bound(changed(items, own, variant=name), own, variant=name)

        return borrow(recipe, of_variant, report)

    def part(self, items: Sequence[s.Item], left_out: frozenset[str]) -> Report:
        """The findings in these blocks."""
        report = Report()
        recipe = self.bound(items, report, left_out)
        if recipe and not report.failures:
            self._checked(recipe, self.borrowed(recipe, items, report), report)
        return report

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            if self.crashed is None:
                raise
            self.crashed(what)
