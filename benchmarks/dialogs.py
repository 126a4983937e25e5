"""Dialogs per second that a chat template turns into tokens, compared with plain transformers.

    python -m benchmarks.dialogs TEMPLATE [runs]

TEMPLATE is a Jinja file with ChatML's tokens, such as that of Qwen3. Both write the same tokens,
which is checked. Ours also decides for each token whether it is learned, and rejects anything that
the template leaves out; transformers' `apply_chat_template` does neither. The runs alternate, so
other load on the machine affects both; the ratio is that of the medians. Writes the section
"Dialogs" of benchmarks/RESULTS.md.
"""

import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from transformers import PreTrainedTokenizerFast

from etude.runtime.data.dialogs.dialog import renderer
from etude.runtime.data.tokens import tokenizer

from .results import write_section

TOKENS = ["<|im_start|>", "<|im_end|>"]
PARAMETERS = {"type": "object", "properties": {"town": {"type": "string"}}}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": PARAMETERS},
}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"town": "T"}}}
DIALOGS = 20
"""Dialogs per run, each with its own texts."""

Dialog = list[dict[str, Any]]


def dialog(number: int, turns: int, tools: bool) -> Dialog:
    """A dialog of some turns; with tools, each turn calls one before the answer."""
    made: Dialog = []
    for turn in range(turns):
        made.append({"role": "user", "content": f"{number} {turn} " + "hello there " * 20})
        if tools:
            made.append({"role": "assistant", "content": "", "tool_calls": [CALL]})
            made.append({"role": "tool", "content": f"{number} yes"})
        made.append({"role": "assistant", "content": f"{turn} " + "yes indeed " * 40})
    return made


def rates(
    ours: Callable[[Dialog], Any], theirs: Callable[[Dialog], Any], dialogs: list[Dialog], runs: int
) -> tuple[float, float]:
    """Medians of dialogs per second of processor time; the first run warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        for render, times in zip((ours, theirs), seconds, strict=True):
            begin = time.process_time()
            for each in dialogs:
                render(each)
            if run:
                times.append(time.process_time() - begin)
    return len(dialogs) / median(seconds[0]), len(dialogs) / median(seconds[1])


def main(template: Path, runs: int) -> None:
    made = tokenizer.byte_level(TOKENS)
    ours = renderer({"template": str(template)}, made, Path("/"))
    other: Any = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=tokenizer.BOS, eos_token=tokenizer.EOS
    )
    other.chat_template = template.read_text()
    rows: list[str] = []
    for given in (None, [TOOL]):
        for turns in (1, 3, 10):
            dialogs = [dialog(number, turns, bool(given)) for number in range(DIALOGS)]

            def here(each: Dialog, tools: Any = given) -> list[int]:
                return ours.render(each, tools=tools).ids

            def there(each: Dialog, tools: Any = given) -> list[int]:
                return other.apply_chat_template(each, tools=tools, return_dict=False)

            assert all(here(each) == there(each) for each in dialogs)
            mine, its = rates(here, there, dialogs, runs)
            tools = "a call in each" if given else "no tools"
            rows.append(f"| {turns}, {tools} | {mine:,.0f} | {its:,.0f} | {mine / its:.2f} |")
    versions = ", ".join(f"{n} {version(n)}" for n in ("transformers", "tokenizers", "jinja2"))
    write_section(
        "Dialogs",
        f"`python -m benchmarks.dialogs {template.name} {runs}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}; dialogs to tokens, one for each byte, by a chat "
        f"template; {runs} alternating runs of {DIALOGS} dialogs, dialogs a second of processor "
        "time, medians.\n\n"
        "| turns | etude | transformers | ratio |\n| --- | ---: | ---: | ---: |\n"
        + "\n".join(rows),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 9)
