"""The commands in README and docs: all can be given as they stand, and those that take no minutes
are run, each page in a folder of its own with the files that it speaks of."""

import gc
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import small_base
from weights_folders import write_folder

from etude.cli.main import COMMANDS, main, parser

ROOT = Path(__file__).resolve().parents[3]
PAGES = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TRAIN = ("run",)
"""Commands that take minutes; the same specs are planned instead."""
AFTER_RUN = ("status", "watch", "report")
"""Commands that need what a run has made."""
MEANT = {
    "SPEC": "r.etude",
    "SPEC_OR_PLAN": "r.etude",
    "TEMPLATE": "quickstart",
    "SHELL": "bash",
    "COMMAND": "check",
    "…": "r.etude",
}
"""What capitals in the commands of sentences stand for, where that is no free text."""


class Command(NamedTuple):
    """A command in a page.

    Attributes:
        shown: the output that stands below it; "" where none does.
    """

    page: str
    line: str
    shown: str = ""


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


def commands() -> list[Command]:
    """The commands `etude …` in blocks of shell."""
    found: list[Command] = []
    for name, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        for kind, block in re.findall(r"^```(sh|bash|console)\n(.*?)^```", text, re.M | re.S):
            for line in block.splitlines(keepends=True):
                if (line.removeprefix("$ ")).startswith("etude "):
                    found.append(Command(name, line.removeprefix("$ ").rstrip("\n")))
                elif kind == "console" and found:
                    found[-1] = found[-1]._replace(shown=found[-1].shown + line)
    return found


def in_sentences() -> list[Command]:
    """The commands in the sentences of pages, with their options."""
    return [
        Command(name, line)
        for name, page in PAGES.items()
        for line in re.findall(r"`(etude [^`\n]+)`", page.read_text(encoding="utf-8"))
    ]


def given(line: str) -> tuple[list[str], str]:
    """The arguments, without comments, and the file that the output goes to."""
    words = shlex.split(line, comments=True)[1:]
    if ">" in words:
        return words[: words.index(">")], words[words.index(">") + 1]
    return words, ""


def page_block(page: str) -> str:
    """The first spec of a page."""
    text = PAGES[page].read_text(encoding="utf-8")
    found = re.search(r"^```etude\n(.*?)^```", text, re.M | re.S)
    assert found
    return found[1]


def write_files(folder: Path, page: str) -> None:
    """Writes what the commands of a page take: in words, its spec, a recipe, a configuration."""
    (folder / "examples").symlink_to(ROOT / "examples")
    small = page_block("tutorial.md")
    (folder / "small.etude").write_text(small)
    large = (ROOT / "examples" / "llama3_405b.etude").read_text(encoding="utf-8")
    (folder / "recipe.etude").write_text(large if page == "cost.md" else page_block("README.md"))
    (folder / "pretrain.etude").write_text(small)
    if page == "cluster.md":
        (folder / "recipe.etude").write_text(page_block(page))
        site = re.search(r"^```toml\n(\[kubernetes\].*?)^```", PAGES[page].read_text(), re.M | re.S)
        assert site
        (folder / "site.toml").write_text(site[1])
    if page == "fine_tuning.md":
        small_base.write(folder)
        write_folder(folder / "base", {"max_position_embeddings": 128})
    for name in ("sft.yaml", "sft.yml"):
        (folder / name).write_text((ROOT / "tests" / "configs" / "axolotl_sft.yaml").read_text())


FAULTS = {
    "error[E205]: `2Ki` needs a unit": (
        "batch   = 2Ki tokens -> 8Ki tokens for 500k tokens then 8Ki tokens",
        "batch   = 2Ki",
    ),
    "error[E214]: the percentages": ("{ docs 60%", "{ docs 50%"),
}
"""How the beginning of a message that a page shows → what somebody had changed in the spec."""


def assert_shown(shown: str, said: str) -> None:
    """What a page shows stands in the output, in this order; a line `…` stands for others."""
    place = 0
    for part in re.split(r"^…\n", shown, flags=re.M):
        assert part in said[place:], said
        place = said.index(part, place) + len(part)


@pytest.mark.parametrize("command", sorted(set(commands())), ids=lambda c: f"{c.page}-{c.line}")
def test_every_command_can_be_given_as_it_stands(command: Command) -> None:
    assert parser().parse_args(given(command.line)[0]).command


def parses(words: list[str]) -> bool:
    try:
        parser().parse_args(words)
    except SystemExit as ended:
        return ended.code == 0
    return True


@pytest.mark.parametrize("line", sorted({each.line for each in in_sentences()}))
def test_every_command_in_a_sentence_is_one(line: str) -> None:
    words = [MEANT.get(word, word) for word in given(line)[0]]
    # A sentence may name a command alone, or with an option and without the spec.
    alone = len(words) == 1
    assert parses([*words, "--help"] if alone else words) or parses([*words, "r.etude"])


@pytest.mark.parametrize("page", sorted({command.page for command in commands()}))
def test_the_commands_of_a_page_run_and_show_what_it_says(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, page)
    for command in (each for each in commands() if each.page == page):
        words, target = given(command.line)
        if words[0] in AFTER_RUN:
            continue
        if words[0] in TRAIN:
            words[0] = "plan"
        (tmp_path / "sft.etude").unlink(missing_ok=True)
        fault = next((each for each in FAULTS if command.shown.startswith(each)), "")
        spec, before = tmp_path / words[1], ""
        if fault:
            before = spec.read_text()
            assert FAULTS[fault][0] in before
            spec.write_text(before.replace(*FAULTS[fault]))
        code = main(words)
        said = capsys.readouterr()
        assert code == (1 if fault else 0), said.err
        assert_shown(command.shown, said.out + said.err)
        if fault:
            spec.write_text(before)
        if target and not target.startswith("~"):
            (tmp_path / target).write_text(said.out)


def test_there_are_commands_to_look_at() -> None:
    pages = {command.page for command in commands()}
    assert {"tutorial.md", "llama3.md", "reproducing.md", "json.md", "cost.md"} <= pages
    assert [command.page for command in commands() if command.shown] == [
        "cluster.md",
        "cluster.md",
        "commands.md",
        *["fine_tuning.md"] * 3,
        "import.md",
        "tutorial.md",
        "tutorial.md",
    ]


def test_the_table_of_readme_and_the_page_of_commands_have_every_command() -> None:
    readme = PAGES["README.md"].read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in readme.splitlines() if line.startswith("| `etude ")]
    named = {name for cell in table for name in re.findall(r"`etude ([a-z]+)", cell)}
    assert named == set(COMMANDS)
    page = PAGES["commands.md"].read_text(encoding="utf-8")
    headings = " ".join(line for line in page.splitlines() if line.startswith("## "))
    assert set(re.findall(r"`etude ([a-z]+)", headings)) == set(COMMANDS)
