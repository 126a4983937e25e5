"""Writes docs/errors/ from the pages in spec/findings/rules/: `python docs/generate.py`."""

from importlib import import_module
from pathlib import Path
from typing import Any

# By name: pyright mistakes the folder `etude` of the tree for the whole package.
codes: Any = import_module("etude.spec.findings.codes")
examples: Any = import_module("etude.compiler.examples")
render: Any = import_module("etude.spec.findings.render")

FOLDER = Path(__file__).with_name("errors")

SECTIONS = {
    "E10": "Text",
    "E11": "Numbers",
    "E12": "Files",
    "E13": "JSON",
    "E20": "Values",
    "E21": "Mixtures, placements and schedules",
    "E30": "Blocks",
    "E31": "Attributes, gates and expectations",
    "E32": "Stages in rounds, and filters",
    "E33": "Silenced findings, and what is open",
    "E34": "Variants and changes on the command line",
    "E40": "Stages",
    "E41": "Optimizers, tokenizers, clusters and models",
    "E42": "Averages, evaluations, data sets, tokenizers and clusters",
    "E43": "Placements",
    "E44": "Schedules in steps",
    "E45": "Batches and sequences on ranks, and segments that do not fit",
    "E46": "Expectations",
    "E481": "Miniatures",
    "E482": "Miniatures",
    "E48": "Pipelines, attention and experts on ranks",
    "E49": "What torchtitan says, and files",
    "E50": "Rounds",
    "E51": "Dialogs, preferences and judges",
    "E52": "Choices, draws and measures",
    "E53": "Records",
    "E545": "Tokens that exist",
    "E546": "Tokens that exist",
    "E547": "Tokens that exist",
    "E54": "Published weights and exports",
    "E585": "Evaluations in stages that train",
    "E586": "Evaluations in stages that train",
    "E587": "Evaluations in stages that train",
    "E588": "Evaluations in stages that train",
    "E58": "Reinforcement learning",
    "E59": "Models by parts",
    "E55": "Object stores",
    "E564": "Precision and recomputation",
    "E565": "Precision and recomputation",
    "E566": "Precision and recomputation",
    "E567": "Attention",
    "E568": "Experts on other GPUs",
    "E573": "Adapters",
    "E574": "Adapters",
    "E575": "Adapters",
    "E56": "Models that write",
    "E57": "Profiles",
    "W60": "Learning rates",
    "W61": "Batches, lengths and shapes",
    "W62": "Data",
    "W63": "Gates, evaluations and averages",
    "W64": "Preferences and samples",
    "W65": "What is silenced",
    "W663": "Precision",
    "W664": "Precision",
    "W66": "Memory",
    "W673": "Profiles",
    "W674": "Profiles",
    "W678": "Files of data",
    "W679": "Files of data",
    "W67": "Expectations and published weights",
    "N60": "Learning rates and optimizers",
    "N61": "Batches, lengths and shapes",
    "N62": "Data and reproducibility",
    "N65": "What nothing uses",
    "N66": "Memory and time",
    "N67": "Published weights",
}
"""The first characters of codes → the heading of their section."""

KINDS = {
    "E": "## Errors\n\nNothing runs before they are fixed.",
    "W": "## Warnings\n\nThe recipe runs, and is probably not what was meant. "
    '`allow CODE "reason"` silences one where it is meant.',
    "N": "## Notes\n\nWorth knowing; often meant.",
}


def pages() -> dict[str, str]:
    """Every page by its name: one per code, and the list of all.

    Raises: ValueError: a code belongs to no section.
    """
    found = {f"{code}.md": _page(codes.rule(code)) for code in codes.known()}
    return {"index.md": _index()} | found


def _index() -> str:
    lines = [
        "# Errors, warnings and notes",
        "",
        "Every finding of `etude check` and `etude plan` has a code. `etude explain CODE` shows "
        "the same text as its page here, with an example that is wrong and the example fixed.",
        "",
        "These pages are written by `docs/generate.py` from `spec/findings/rules/`.",
    ]
    shown = section = None
    for code in sorted(codes.known(), key=lambda c: ("EWN".index(c[0]), c)):
        if code[0] != shown:
            shown = code[0]
            lines += ["", KINDS[shown]]
        heading = next((name for start, name in SECTIONS.items() if code.startswith(start)), None)
        if heading is None:
            raise ValueError(f"{code} belongs to no section: add one in docs/generate.py")
        if (shown, heading) != section:
            section = (shown, heading)
            lines += ["", f"### {heading}", ""]
        lines.append(f"- [{code}]({code}.md): {codes.rule(code).title}")
    lines += [
        "",
        "## What the examples stand beside",
        "",
        "Examples leave out what does not matter to them: each page says what of this it stands "
        "beside.",
        "",
        "```etude",
        examples.frame("post").strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _page(rule: Any) -> str:
    lines = [f"# {rule.code}: {rule.title}", "", rule.text, ""]
    if not (rule.wrong.texts or rule.wrong.shell):
        return "\n".join([*lines, "[All codes](index.md)", ""])
    lines += ["## Wrong", *_example(rule.wrong)]
    if not rule.wrong.shell:
        shown = "\n\n".join(render.render(d) for d in examples.wrong(rule))
        lines += ["", "```text", shown, "```"]
    lines += ["", "## Right", *_example(rule.right), ""]
    if rule.wrong.frame:
        lines.append(
            f"The example stands beside {examples.beside(rule.wrong.frame)}, which "
            "[the list of codes](index.md#what-the-examples-stand-beside) shows."
        )
        lines.append("")
    lines += ["[All codes](index.md)", ""]
    return "\n".join(lines)


def _example(example: Any) -> list[str]:
    if example.shell:
        return ["", "```sh", example.shell.rstrip(), "```"]
    lines = []
    for name, text in example.texts.items():
        kind = "json" if name.endswith(".json") else "etude"
        lines += ["", *([f"`{name}`:", ""] if name else []), f"```{kind}", text.rstrip(), "```"]
    return lines


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for page in FOLDER.glob("*.md"):
        if page.name not in made:
            page.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
