"""Verifiers: what they take for right, and answers that try to stop them."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from etude.compiler.plan.verifiers import Verifier
from etude.runtime import stopping
from etude.runtime.errors import Interrupted, RunError
from etude.runtime.verification import (
    _processes,
    misfit,
    require,
    verified,
    verifiers,
)
from etude.runtime.verification.process import Processes

LETTERS = ["A", "B", "C", "D"]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"$ref": "#/$defs/x"}},
    "required": ["n"],
    "$defs": {"x": {"type": "string", "pattern": "^(a+)+$"}},
}


def right(kind: str, answer, text: str, root, **settings) -> float:
    record = {"prompt": "?"} if answer is None else {"prompt": "?", "answer": answer}
    return verifiers({"v": Verifier.model_validate({"kind": kind, **settings})}, root)["v"](
        record, text
    )


@pytest.fixture(scope="module")
def math(tmp_path_factory):
    score = verifiers({"v": Verifier(kind="math")}, tmp_path_factory.mktemp("root"))["v"]
    return lambda answer, text: score({"answer": answer}, text)


@pytest.mark.parametrize(
    ("answer", "text", "score"),
    [
        ("22", "22", 1),
        ("22", "The answer is 22.", 1),
        ("22", "First 7, then 15; so \\boxed{22}.", 1),
        ("22", "23", 0),
        ("22", "", 0),
        ("\\frac{1}{2}", "0.5", 1),
        ("1/2", "It is $\\frac{2}{4}$.", 1),
        ("3,000", "3000", 1),
        ("x^2 + 1", "$1 + x^2$", 1),
        ("$x = 4$", "4", 1),
        (["5", "22"], "22", 1),
        (["5", "22"], "7", 0),
        ("no solution", "no solution", 1),
        ("22", "\ud800 22", 1),
    ],
)
def test_expressions_are_equal_if_they_mean_the_same(answer, text, score, math):
    assert math(answer, text) == score


@pytest.mark.parametrize(
    "text", ["10**10**10", "$9!!!!!!$", "(" * 20_000, "$" + "{" * 5_000, "\\boxed{" * 3_000]
)
def test_a_hostile_expression_costs_its_own_score_alone(text, math):
    assert math("22", text) == 0
    assert math("22", "22") == 1


def test_mathematics_is_verified_off_the_main_thread(math):
    found: list[float] = []
    one = threading.Thread(target=lambda: found.extend([math("22", "22.0"), math("22", "21")]))
    one.start()
    one.join()
    assert found == [1, 0]


@pytest.mark.parametrize(
    ("kind", "answer", "text", "score", "settings"),
    [
        ("exact", "Paris", " Paris\n", 1, {}),
        ("exact", "Paris", "paris", 0, {}),
        ("exact", "Paris", "pARIS", 1, {"ignore_case": True}),
        ("exact", "so 3\n#### 72", "2, then\n#### 1\n#### 72", 1, {"extract": "#### (.*)"}),
        ("exact", "72", "#### 72\n#### 1", 0, {"extract": "#### (.*)"}),
        ("exact", "72", "72", 0, {"extract": "#### (.*)"}),
        ("exact", "", "x", 0, {"extract": "x(y)?"}),
        ("choice", "B", "B", 1, {"options": LETTERS}),
        ("choice", "B", "(B).", 1, {"options": LETTERS}),
        ("choice", "1", "B", 1, {"options": LETTERS}),
        ("choice", "B", "b", 0, {"options": LETTERS}),
        ("choice", "B", "b", 1, {"options": LETTERS, "ignore_case": True}),
        ("choice", "B", "A or B", 0, {"options": LETTERS}),
        ("choice", "C++", "C++", 1, {"options": ["C", "C++"]}),
        ("choice", "1", "2", 0, {"options": ["1", "2"]}),
        ("choice", "B", "it is (B)", 1, {"options": LETTERS, "extract": "is \\(?([A-D])"}),
        ("regex", None, "say yes now", 1, {"pattern": "yes"}),
        ("regex", None, "YES", 0, {"pattern": "yes"}),
        ("regex", None, "YES", 1, {"pattern": "yes", "ignore_case": True}),
        ("format", None, "<think>a\nb</think>\nc", 1, {"pattern": "<think>.*</think>.*"}),
        ("format", None, "x<think>a</think>", 0, {"pattern": "<think>.*</think>.*"}),
        ("length", None, "one two three", 1, {"most": 3}),
        ("length", None, "one two three", 0, {"most": 2}),
        ("length", None, "", 0, {"least": 1}),
        ("length", None, "one", 1, {"least": 1, "most": 1}),
        ("length", None, "one two", 1, {"most": 4, "soft": 2}),
        ("length", None, "one two three", 0.5, {"most": 4, "soft": 2}),
        ("length", None, "one two three four", 0, {"most": 4, "soft": 2}),
    ],
)
def test_what_is_right(kind, answer, text, score, settings, tmp_path):
    assert right(kind, answer, text, tmp_path, **settings) == score


def children() -> list[int]:
    """The processes that this one has started."""
    found = Path("/proc/self/task").glob("*/children")
    return [int(word) for path in found for word in path.read_text().split()]


def test_an_answer_is_verified_again_if_the_system_kills_its_process(tmp_path):
    process = Processes({"v": {"kind": "regex", "pattern": "yes"}}, tmp_path)
    before = children()
    process.start()
    (child,) = set(children()) - set(before)
    os.kill(child, signal.SIGKILL)
    assert process.score("v", [], "yes") == 1


def test_a_process_that_is_killed_each_time_ends_the_run_and_scores_nothing(tmp_path):
    process = Processes({"v": {"kind": "regex", "pattern": "^(a+)+$"}}, tmp_path)
    before, over = children(), threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            for child in set(children()) - set(before):
                os.kill(child, signal.SIGKILL)

    process.start()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(Interrupted, match="killed 3 times"):
            process.score("v", [], "a" * 40 + "b")
    finally:
        over.set()
        killer.join()


def test_a_pattern_that_backtracks_for_ever_costs_one_answer(tmp_path):
    score = verifiers({"v": Verifier(kind="regex", pattern="^(a+)+$")}, tmp_path)["v"]
    begin = time.process_time()
    assert score({}, "a" * 60 + "b") == 0
    assert time.process_time() - begin < 1  # this process only waits
    assert score({}, "a" * 60) == 1


def test_answers_that_a_schema_allows(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    score = verifiers({"v": Verifier(kind="json_schema", schema_file="s.json")}, tmp_path)["v"]
    texts = ['{"n": 1}', '{"n": 1.5}', "[]", "{", '{"n": NaN}', '{"n": 1, "s": "aa"}', "[" * 99999]
    assert [score({}, text) for text in texts] == [1, 0, 0, 0, 0, 1, 0]
    assert score({}, json.dumps({"n": 1, "s": "a" * 60 + "b"})) == 0
    assert score({}, '{"n": 2}') == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ('{"type": "nothing"}', "is no JSON Schema"),
        ('{"$ref": "https://example.org/x"}', "refers to `https://example.org/x`"),
        ('{"$ref": "#/$defs/y"}', "leads nowhere"),
    ],
)
def test_a_schema_that_cannot_be_used_is_said_before_the_first_answer(text, reason, tmp_path):
    if text is not None:
        (tmp_path / "s.json").write_text(text)
    with pytest.raises(RunError, match=reason.replace("$", "\\$")):
        require({"v": Verifier(kind="json_schema", schema_file="s.json")}, tmp_path)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match="`right` needs the package math-verify") as problem:
        require({"right": Verifier(kind="math")}, tmp_path)
    assert problem.value.help == "install it: pip install 'etude[verify]'"


def test_answers_that_are_no_option_are_told_before_they_count(tmp_path):
    choice = Verifier(kind="choice", options=LETTERS)
    assert misfit(choice, ["B", "3"]) == ""
    assert misfit(choice, ["E"]) == "`E` is none of the options A, B, C, D"
    assert misfit(choice, ["4"]) == "`4` is none of the options A, B, C, D"


def test_answers_are_verified_side_by_side_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("etude.runtime.verification.processors", lambda: 3)
    monkeypatch.setattr("etude.runtime.verification.TOGETHER", 4)
    planned = {
        "long": Verifier(kind="regex", pattern="a{38,}=.*"),
        "right": Verifier(kind="exact", extract="(?:a|aa)+=(.*)"),
    }
    asked = [
        ({"answer": str(n % 3)}, {"text": f"{'a' * (n % 50)}a={n % 2}", "finished": n % 5 > 0})
        for n in range(100)
    ]
    found = list(verified(planned, tmp_path, asked, "it goes on"))
    assert [(record, draw) for record, draw, _ in found] == asked
    for n, (_, _, scores) in enumerate(found):
        done = n % 5 > 0
        assert scores == {"long": done and n % 50 >= 37, "right": done and n % 3 == n % 2}


def test_processes_are_kept_for_the_same_verifiers_alone(tmp_path):
    schema = tmp_path / "s.json"
    schema.write_text('{"type": "integer"}')
    planned = {"v": Verifier(kind="json_schema", schema_file="s.json")}

    def score(text: str) -> float:
        return verifiers(planned, tmp_path)["v"]({}, text)

    before = _processes.cache_info().misses
    assert (score("1"), score('"a"')) == (1, 0)
    assert _processes.cache_info().misses == before + 1
    schema.write_text('{"type": "string"}')
    assert (score("1"), score('"a"')) == (0, 1)
    assert _processes.cache_info().misses == before + 2


def test_a_run_that_is_asked_to_stop_waits_for_no_answers(tmp_path, monkeypatch):
    asked = [({"answer": "1"}, {"text": "1", "finished": True})] * 10_000
    each = verified({"v": Verifier(kind="exact")}, tmp_path, asked, "it goes on")
    assert next(each)[2] == {"v": 1}
    monkeypatch.setattr(stopping._flag, "asked", signal.SIGTERM)
    with pytest.raises(Interrupted, match="it goes on"):
        list(each)
