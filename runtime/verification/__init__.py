"""Scores of answers by programs: no model is asked.

Verifiers run in a process of their own, one for all verifiers of a call, with limits on the
processor time and the memory that an answer takes. So an answer that would run for ever, such as a
text on which a regular expression backtracks, costs its own score and nothing else. Limits are in
processor time, not in time that passes, so that a busy machine scores like an idle one.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...compiler.plan.verifiers import Verifier
from ..errors import RunError
from .kinds import option
from .process import Process

__all__ = ["Score", "files", "misfit", "require", "right_answers", "scores", "verifiers"]

Score = Callable[[Mapping[str, Any], str], float]
"""(record of prompts.jsonl, text of an answer) → a score from 0 to 1."""
ANSWER = "answer"
"""The key of records of prompts with the right answer: a text, or a list of texts."""


def verifiers(planned: Mapping[str, Verifier], root: Path) -> dict[str, Score]:
    """The functions of verifiers, by name.

    They raise for no answer: what cannot be verified within the limits scores 0. Their process
    starts with the first answer.

    Args:
        root: the folder of the spec, which paths are relative to.

    Raises (the functions): RunError: a verifier cannot be used, or its process does not start.
    """
    process = Process({name: _settings(each) for name, each in planned.items()}, root)

    def scoring(name: str) -> Score:
        def score(record: Mapping[str, Any], text: str) -> float:
            return process.score(name, right_answers(record), text)

        return score

    return {name: scoring(name) for name in planned}


def scores(
    of: Mapping[str, Score], record: Mapping[str, Any], draw: Mapping[str, Any]
) -> dict[str, float]:
    """What verifiers say about a draw, by name. A draw that the model did not end scores 0: nobody
    knows how it would have ended.

    Args:
        record: of prompts.jsonl.
        draw: of draws.jsonl.

    Raises: RunError: a verifier cannot be used, or its process does not start.
    """
    done = draw["finished"]
    return {name: score(record, draw["text"]) if done else 0.0 for name, score in of.items()}


def right_answers(record: Mapping[str, Any]) -> list[str]:
    """The right answers of a record of prompts, of which any will do; or tests, which all run."""
    answer = record.get(ANSWER)
    if answer is None:
        return []
    return [answer] if isinstance(answer, str) else list(answer)


def misfit(verifier: Verifier, answers: list[str]) -> str:
    """Why a record's answers can never be right, for people; "" if they can."""
    if verifier.kind == "python_tests":
        return _unreadable("\n".join(answers))
    if verifier.kind != "choice":
        return ""
    wrong = [each for each in answers if option(_settings(verifier), each) is None]
    options = ", ".join(verifier.options or ())
    return f"`{wrong[0]}` is none of the options {options}" if wrong else ""


def _unreadable(tests: str) -> str:
    try:
        compile(tests, "tests.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        return f"the tests are no Python ({problem})"
    return ""


def require(planned: Mapping[str, Verifier], root: Path) -> None:
    """Checks that verifiers can be used here.

    Raises: RunError: a package or the sandbox is missing, or a schema cannot be read.
    """
    for name, each in planned.items():
        if each.kind == "math" and importlib.util.find_spec("math_verify") is None:
            raise RunError(
                f"the verifier `{name}` needs the package math-verify, which is not installed",
                "install it: pip install 'etude[verify]'",
            )
    tried = {
        name: _settings(each)
        for name, each in planned.items()
        if each.schema_file or each.kind == "python_tests"
    }
    if tried:
        Process(tried, root).start()


def files(planned: Mapping[str, Verifier], root: Path) -> list[Path]:
    """The files that verifiers read."""
    return [root / each.schema_file for each in planned.values() if each.schema_file]


def _settings(verifier: Verifier) -> dict[str, Any]:
    return verifier.model_dump(mode="json")
