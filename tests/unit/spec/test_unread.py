"""A statement that cannot be read hides nothing of its block, and makes nothing up."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from specs import HEAD, POST_TRAINING

from etude.cli.common import analyse_file
from etude.spec.findings.diagnostics import Diagnostic

EXAMPLES = Path(__file__).parents[3] / "examples"
REST = "model = tiny, tokens = 64k, seq_len = 64, batch = 8 seqs, lr = 1e-3, data = { web 100% }"
_VALUE = re.compile(r"(?<=[\n{,])[ \t]*([a-z_]\w*)[ \t]*=(?=[ \t]*[^\s={])")


def checked(folder: Path, text: str) -> list[Diagnostic]:
    path = folder / "spec.etude"
    path.write_text(text)
    return analyse_file(str(path)).report.diagnostics


def found(folder: Path, stage: str) -> list[str]:
    """Codes and what they are shown at, of a stage with an attribute a line and on one line."""
    shown = []
    for items in (stage, stage.replace(", ", "\n  ")):
        spec = f"{HEAD}stage first: train {{ {items} }}\n"
        of = [d for d in checked(folder, spec) if d.code[0] == "E"]
        shown.append(sorted(f"{d.code} {d.span.text if d.span else ''}" for d in of))
    assert shown[0] == shown[1], "the layout makes no difference"
    return shown[0]


@pytest.mark.parametrize(
    ("wrong", "others"),
    [
        ("tokens = = 64k", {"batch = 8 seqs": "batch = 8 steps"}),
        ("seq_len = ?", {"batch = 8 seqs": "batch = 8 steps", "lr = 1e-3": "lr = 2 steps"}),
        ("lr = 1e-3 : 3", {"batch = 8 seqs": "cliip = 1, batch = 8 seqs"}),
        ("batch =", {"lr = 1e-3": "lr = 2 steps"}),
        ("clip = = 1", {"lr = 1e-3": "lr = 2 steps"}),
    ],
)
def test_other_statements_of_its_block_are_checked(
    wrong: str, others: dict[str, str], tmp_path: Path
) -> None:
    name = wrong.partition(" ")[0]
    items = [each for each in REST.split(", ") if each.partition(" ")[0] != name]
    text = ", ".join([wrong, *items]).replace("web 100%", "wob 100%")
    for right, mistaken in others.items():
        text = text.replace(right, mistaken)
    codes = found(tmp_path, text)
    assert sum(each.startswith("E1") for each in codes) == 1
    assert "E402 { wob 100% }" in codes, "names are looked up in the block, too"
    assert len(codes) == len(others) + 2


def test_what_later_passes_find_in_the_block_is_shown_where_it_depends_on_nothing_unread(
    tmp_path: Path,
) -> None:
    text = REST.replace("lr = 1e-3", "lr = = 1e-3") + ", parallel = { tensor 3 }"
    whole = found(tmp_path, REST + ", parallel = { tensor 3 }")
    assert whole, "three do not divide the heads"
    assert set(whole) < set(found(tmp_path, text))


def test_several_unread_statements_on_a_line_are_each_reported(tmp_path: Path) -> None:
    text = REST.replace("lr = 1e-3", "lr = ?").replace("seq_len = 64", "seq_len = = 64")
    codes = found(tmp_path, text.replace("8 seqs", "8 steps"))
    assert [each[:2] for each in codes] == ["E1", "E1", "E2"]


def broken(text: str) -> Iterator[tuple[str, str]]:
    """A spec with each of its statements in turn broken, and the name of the attribute."""
    ways: tuple[Callable[[str], str], ...] = (lambda v: f" = {v}", lambda v: f" ? {v}")
    for number, match in enumerate(_VALUE.finditer(text)):
        if match[1] not in ("average", "keep"):  # these have their own message
            yield text[: match.end()] + ways[number % 2](text[match.end() :]), match[1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param((EXAMPLES / "llama3_405b.etude").read_text(), id="llama3_405b"),
        pytest.param((EXAMPLES / "published" / "tulu3_8b.etude").read_text(), id="tulu3_8b"),
        pytest.param(POST_TRAINING, id="rounds"),
    ],
)
def test_an_unread_statement_is_one_error(text: str, tmp_path: Path) -> None:
    before = {(d.code, d.message) for d in checked(tmp_path, text)}
    assert not any(code.startswith("E") for code, _ in before)
    count = 0
    for spec, name in broken(text):
        after = [
            d
            for d in checked(tmp_path, spec)
            if (d.code, d.message) not in before and d.code[0] != "N"
        ]
        assert [d.code[:2] for d in after] == ["E1"], (name, [d.message for d in after])
        count += 1
    assert count > 20
