"""Scores of answers by programs: no model is asked.

Verifiers run in processes of their own, each with all verifiers of a call, with limits on the
processor time and the memory that an answer takes. So an answer that would run for ever, such as a
text on which a regular expression backtracks, costs its own score and nothing else. Limits are in
processor time, not in time that passes, so that a busy machine scores like an idle one.
"""

import importlib.util
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from ...compiler.plan.verifiers import Verifier
from .. import stopping
from ..errors import RunError
from ..processors import processors
from . import instructions
from .kinds import option
from .process import Processes

__all__ = ["Score", "files", "misfit", "require", "right_answers", "verified", "verifiers"]

Score = Callable[[Mapping[str, Any], str], float]
"""(record of prompts.jsonl, text of an answer) → a score from 0 to 1."""
Asked = tuple[dict[str, Any], dict[str, Any]]
"""A record of prompts.jsonl and a draw of draws.jsonl."""
Verified = tuple[dict[str, Any], dict[str, Any], dict[str, float]]
"""A record, a draw, and the draw's scores by the names of verifiers."""
TOGETHER = 32
"""Answers that one process verifies at a time; so few answers need one process alone."""
ANSWER = "answer"
"""The key of records of prompts with the right answer: a text, or a list of texts."""


def verified(
    planned: Mapping[str, Verifier], root: Path, answers: Iterable[Asked], what: str
) -> Iterator[Verified]:
    """Answers in their order, with what verifiers say about each.

    Many are verified at once, on all processors that this process may use. An answer that the model
    did not end scores 0: nobody knows how it would have ended. So does one that cannot be verified
    within the limits.

    Args:
        root: the folder of the spec, which paths are relative to.
        answers: records of prompts.jsonl, with draws of draws.jsonl.
        what: what is kept, or where the run continues from, if it is asked to stop.

    Raises:
        RunError: a verifier cannot be used, or its process does not start.
        Interrupted: the run was asked to stop.
    """
    if not planned:
        yield from ((record, draw, {}) for record, draw in answers)
        return
    score = verifiers(planned, root)

    def scored(some: list[Asked]) -> list[Verified]:
        found = []
        for record, draw in some:
            stopping.check(what)
            done = draw["finished"]
            of = {name: score[name](record, draw["text"]) if done else 0.0 for name in planned}
            found.append((record, draw, of))
        return found

    rest = iter(answers)
    most = processors()
    waiting: deque[Future[list[Verified]]] = deque()
    threads = ThreadPoolExecutor(most)
    try:
        while some := list(islice(rest, TOGETHER)):
            waiting.append(threads.submit(scored, some))
            if len(waiting) > most:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def verifiers(planned: Mapping[str, Verifier], root: Path) -> dict[str, Score]:
    """The functions of verifiers, by name; any thread may call them.

    They raise for no answer: what cannot be verified within the limits scores 0. Their processes
    start with the first answers, and are kept for the next call: a policy's answers are scored
    every few steps, and to import what verifies them may take longer than to verify them.

    Args:
        root: the folder of the spec, which paths are relative to.

    Raises (the functions): RunError: a verifier cannot be used, or its process does not start.
    """
    read = tuple(path.read_bytes() for path in files(planned, root) if path.is_file())
    settings = {name: _settings(each) for name, each in planned.items()}
    processes = _processes(json.dumps(settings), root, read)

    def scoring(name: str) -> Score:
        def score(record: Mapping[str, Any], text: str) -> float:
            return processes.score(name, right_answers(record), text)

        return score

    return {name: scoring(name) for name in planned}


@lru_cache(maxsize=2)  # a policy's answers may be scored in two jobs, turn by turn
def _processes(of: str, root: Path, read: tuple[bytes, ...]) -> Processes:
    """The processes of verifiers, which are given as JSON; `read` is what their files hold."""
    return Processes(json.loads(of), root)


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
    if verifier.kind == "ifeval":
        return instructions.misfit(answers)
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
        Processes(tried, root).start()


def files(planned: Mapping[str, Verifier], root: Path) -> list[Path]:
    """The files that verifiers read."""
    return [root / each.schema_file for each in planned.values() if each.schema_file]


def _settings(verifier: Verifier) -> dict[str, Any]:
    return verifier.model_dump(mode="json")
