"""Every kind of stage has a room of its own, and nothing else asks a stage for its kind."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.compiler.program import Stage, Weights
from etude.compiler.stages import KINDS
from etude.compiler.stages.kind import TrainingKind
from etude.compiler.stages.weights import ALSO
from etude.spec.record import fields
from etude.spec.schema import recipe as r
from etude.spec.text.keywords import STAGE_KINDS

ROOT = Path(__file__).parents[3]
FOLDERS = ("compiler", "cli", "pages", "authoring", "lsp")
BY_KIND = ("compiler/stages/", "compiler/advice/")
"""Where stages of one kind are the subject: their rooms, and what is advised of them."""


def sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield name, node


def kinds_in(node: ast.AST) -> set[str]:
    """The kinds of stages that an expression names: `r.Dpo`, `DpoStage`."""
    kinds = {spec.__name__ for spec in KINDS} - {"Weights"}
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
            found |= {each.attr} & kinds if each.value.id == "r" else set()
        elif isinstance(each, ast.Name) and each.id.endswith("Stage"):
            found |= {each.id.removesuffix("Stage")} & (kinds - {"Train", "Checkpoint"})
    return found


def asks_for_a_kind(node: ast.AST) -> bool:
    """Whether something is `isinstance(…, SomeKind)`, or `… is SomeKind`."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
        return bool(kinds_in(node.comparators[0]))
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id in ("isinstance", "issubclass") and bool(kinds_in(node.args[1]))


def asks_by_name(node: ast.AST) -> bool:
    """Whether something is `….kind == "dpo"`, or the kind in some names."""
    if not isinstance(node, ast.Compare):
        return False
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    sides = [node.left, *node.comparators]
    asked = [n.value for n in sides if isinstance(n, ast.Attribute) and n.attr == "kind"]
    of_stage = any(
        (isinstance(of, ast.Attribute) and of.attr == "spec")
        or (isinstance(of, ast.Name) and of.id in ("stage", "summary"))
        for of in asked
    )
    return of_stage and bool(texts & {*r.STAGES})


def test_every_kind_of_stage_has_a_room() -> None:
    assert {*KINDS} == {*r.STAGES.values(), Weights}
    assert {*STAGE_KINDS} == {*r.STAGES}


def test_kinds_that_train_say_how() -> None:
    trains = {spec for spec, kind in KINDS.items() if isinstance(kind, TrainingKind)}
    assert trains == {spec for spec in KINDS if issubclass(spec, r.Training)}


def test_what_is_shown_of_a_kind_are_attributes_that_it_has() -> None:
    for spec, kind in KINDS.items():
        model = r.Model if spec is Weights else spec
        # Of weights also what their folder says.
        also = ALSO if spec is Weights else ()
        assert {*(kind.shown or ())} <= {*r.attributes(model), *also}, spec.kind


def test_a_stage_is_asked_for_its_kind_in_its_room_alone() -> None:
    """What is true of a kind is a trait of its model or its record, or a row of its room."""
    asked = [
        f"{name}:{getattr(node, 'lineno', 0)}"
        for name, node in sources()
        if not name.startswith(BY_KIND) and (asks_for_a_kind(node) or asks_by_name(node))
    ]
    assert asked == []


def test_no_table_beside_the_rooms_has_a_row_for_every_kind() -> None:
    kinds = {*r.STAGES}
    tables = [
        f"{name}:{node.lineno}"
        for name, node in sources()
        if isinstance(node, ast.Dict)
        and len({key.value for key in node.keys if isinstance(key, ast.Constant)} & kinds) >= 5
    ]
    assert tables == []


def test_no_record_has_a_value_that_means_not_yet() -> None:
    """What a later pass knows is in a record of its own: a field has no default that a pass fills.
    A dialog is what a stage may have none of."""
    records = [Stage]
    for record in records:
        records += record.__subclasses__()
    late = {
        f"{record.__name__}.{name}"
        for record in records
        for name in record._defaults.keys() | record._factories.keys()
        if record.__module__.startswith("etude.") and name in fields(record)
    }
    assert late == {f"{each.__name__}.dialog" for each in records if "dialog" in each._defaults}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("isinstance(stage.spec, r.Dpo)", True),
        ("isinstance(stage, SampleStage | BestStage)", True),
        ("model is r.Train", True),
        ('stage.spec.kind == "dpo"', True),
        ('summary.kind not in ("evaluate", "sample")', True),
        ("isinstance(stage, ScheduledStage)", False),
        ("issubclass(model, r.Training)", False),
        ('job.kind == "train"', False),
    ],
)
def test_what_asks_a_stage_for_its_kind_is_found(text: str, found: bool) -> None:
    nodes = ast.walk(ast.parse(text))
    assert any(asks_for_a_kind(node) or asks_by_name(node) for node in nodes) == found
