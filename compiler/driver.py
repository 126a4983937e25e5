"""The driver: takes a spec through binding and the passes, to its findings and its plan.

    analysis = analyse(read(path))
    compiled = compile(analysis)

Commands, the Python API, the language server and the tests all go this way. Where one of them needs
something else, that is an argument of `analyse`, whose description says why.
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
from .passes import CHECKS, Pass, through
from .program import Claimed, Lowered, Program, Scheduled
from .resolve.borrow import borrow
from .values import Claim

if TYPE_CHECKING:
    from .files.data_files import Matched
    from .plan.plan import Plan


EachVariant = Literal["never", "bound", "always"]


class Analysis(Record):
    """All that is known of a spec before jobs are made.

    Attributes:
        recipe: what the spec declares, changed as requested; None where it cannot be bound.
        borrowed: the same with the stages of variants that it names; None where passes did not run.
        program: the recipe after all passes; None where one of them found an error.
        reached: the program after the last pass that ran, for editors, which show what there is.
        silenced: what the spec allows of what the passes found. What it allows of the files on one
            machine is in the report alone, since a plan is the same on every machine.
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
        """What the recipe claims, where the passes looked at it."""
        return self.program.claims if isinstance(self.program, Claimed) else ()


class Compiled(Record):
    """A plan, and the program with the jobs that it is made of."""

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

    Where there are errors, the blocks that have nothing to do with them are looked at all the same.

    Args:
        variant: the variant to apply; "" for none.
        sets: changes on top of it, as `--set` takes them.
        ranks: run every stage on this many CPU processes of this machine instead of its cluster.
        root: the folder of the spec, to look at the files that it names. None: look at none, as
            the figures of a spec do not depend on them, and a miniature needs none.
        each_variant: when to check every variant as well. `etude check` is asked about all of a
            spec, and whoever plans about one recipe. An editor, which answers after every key,
            waits until the recipe itself can be bound. What is wrong with a variant does not keep
            the program back.
        passes: those to run. A miniature has no claims, and `verify` shows no advice.
        matched: finds files; an editor remembers for a while what it has found.
        crashed: is told, in the handler of the exception, which step of etude's own failed; the
            others go on. An editor loses an answer then, and not its server. None: it is raised.
    """
    driver = _Driver(sources, variant, sets, ranks, root, passes, matched, crashed)
    return driver.run(each_variant)


def compile(analysis: Analysis) -> Compiled | None:
    """The plan of a recipe; None where the report has an error."""
    from .stages.lower import lower
    from .whole_plan import planned  # which checks have no need of

    if analysis.recipe is None or analysis.program is None or analysis.report.failures:
        return None
    program = lower(analysis.program)
    plan = planned(analysis.recipe, program, analysis.claims, analysis.silenced)
    return Compiled(program=program, plan=plan)


def compile_miniature(analysis: Analysis) -> Compiled | None:
    """The plan of a recipe's miniature; None where the report has an error, also a new one."""
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
        """A recipe after the passes."""
        reached: Program = Program(borrowed, self.ranks)
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

    def _sound_blocks(self, report: Report) -> None:
        from .isolation.sound_blocks import check_rest  # only where something is wrong

        items = changed(self.sources.items, Report(), variant=self.variant, sets=self.sets)
        check_rest(items, report, self)

    def _of_variant(self, variant: str) -> Analysis:
        more = (self.ranks, self.root, self.passes, self.matched, self.crashed)
        return _Driver(self.sources, variant, self.sets, *more).run()

    def _bound(self, items: Sequence[s.Item], report: Report, **more: Any) -> r.Recipe | None:
        changes: Any = {"variant": self.variant, "sets": self.sets} | more
        return bind(items, report, where=self.sources.where, **changes)

    def bound(
        self, items: Sequence[s.Item], report: Report, left_out: frozenset[str]
    ) -> r.Recipe | None:
        """The recipe of some blocks of the spec, after its changes."""
        return self._bound(items, report, left_out=left_out)

    def borrowed(self, recipe: r.Recipe, items: Sequence[s.Item], report: Report) -> r.Recipe:
        """The recipe of such blocks, with the stages of variants that it names."""

        def of_variant(name: str, own: Report) -> r.Recipe | None:
            return self._bound(changed(items, own, variant=name), own, variant=name)

        return borrow(recipe, of_variant, report)

    def part(self, items: Sequence[s.Item], left_out: frozenset[str]) -> Report:
        """What is found in such blocks."""
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
