"""The sample of functions: real ones, faults that can be seen, the same ones for a seed."""

import ast
import random
from itertools import islice
from pathlib import Path

import pytest

from etude.runtime.data.records.records import Fields, dialog, preference, prompt
from etude.runtime.data.samples import functions, python_sources, samples


def take(form: str, count: int | None = 60, seed: int = 1) -> list[dict]:
    return list(samples.records("python_functions", form, count=count, seed=seed))


def test_answers_are_short_functions_that_are_asked_for():
    found = functions.functions(0)
    assert len(found) > 1000
    assert len({function.answer for function in found}) == len(found)
    for function in islice(found, 300):
        (node,) = ast.parse(function.answer).body
        assert isinstance(node, ast.FunctionDef)
        assert ast.get_docstring(node) is None
        assert len(function.answer) <= functions.LONGEST
        signature, line = function.question.split("\n")
        assert signature == f"Write the Python function {node.name}({ast.unparse(node.args)})."
        assert line.strip()


def test_a_function_as_it_is_written():
    text = (
        "import os\n\nclass A:\n    @staticmethod\n    def f(x, *, y=1):\n"
        '        """Adds.\n\n        More.\n        """\n        # so\n        return x + y\n'
        '    def g(self):\n        """Nothing."""\n'
        'def h(): """One line."""; return 1\n'
    )
    (found,) = functions._in_module(text)
    assert found.question == "Write the Python function f(x, *, y=1).\nAdds."
    assert found.answer == "def f(x, *, y=1):\n    # so\n    return x + y"


def test_all_forms_are_of_the_same_functions():
    dialogs, prompts, preferences = (take(form) for form in ("dialogs", "prompts", "preferences"))
    documents = list(samples.documents("python_functions", count=60, seed=1))
    for one, two, three, text in zip(dialogs, prompts, preferences, documents, strict=True):
        asked, answered = dialog(one, Fields()).text
        assert prompt(two, Fields()).text == [asked]
        ranked = preference(three, Fields())
        assert ranked.prompt == [asked]
        assert ranked.responses[0] == [answered]
        assert text == f"{asked['content']}\n\n{answered['content']}\n"  # type: ignore[index]


def test_steps_are_lines_and_right_up_to_the_first_with_a_fault():
    found, dialogs = take("solutions", 300), take("dialogs", 300)
    for record, known in zip(found, dialogs, strict=True):
        answer = known["messages"][-1]["content"].splitlines()
        steps, labels = record["completions"], record["labels"]
        right = labels.index(False) if False in labels else len(steps)
        assert steps[:right] == answer[:right]
        assert steps[right : right + 1] != answer[right : right + 1] or right == len(answer)
        assert not any(labels[right:])
    wrong = sum(False in record["labels"] for record in found)
    assert 90 < wrong < 180


def test_preferences_are_ranked_and_sometimes_of_three():
    ranked = [preference(record, Fields()) for record in take("preferences", 300)]
    sizes = [len(each.responses) for each in ranked]
    assert set(sizes) == {2, 3}
    assert 60 < sizes.count(3) < 140
    for each in ranked:
        assert len(set(each.texts())) == len(each.texts())


def test_the_seed_decides_order_and_faults():
    assert take("preferences") == take("preferences")
    assert take("preferences") != take("preferences", seed=2)
    assert take("prompts", 5) == take("prompts", 50)[:5]


@pytest.mark.parametrize("faults", [1, 3])
@pytest.mark.parametrize(
    "source",
    [
        "def f(): pass",
        "def f(x):\n    return x",
        "def f(a, b):\n    if a == b:\n        return a\n    é = 'ü'; return b + é",
    ],
)
def test_what_is_spoiled_differs(source, faults):
    texts = [functions.spoiled(source, random.Random(n), faults=faults) for n in range(60)]
    assert source not in texts
    assert texts == [functions.spoiled(source, random.Random(n), faults=faults) for n in range(60)]


def test_small_faults_stay_python_and_gross_ones_mostly_do_not():
    found = functions.functions(0)[:200]

    def valid(text: str) -> bool:
        try:
            python_sources.parse(text)
        except (SyntaxError, ValueError):
            return False
        return True

    def share(faults: int) -> float:
        texts = [
            functions.spoiled(f.answer, random.Random(i), faults=faults)
            for i, f in enumerate(found)
        ]
        return sum(map(valid, texts)) / len(texts)

    assert share(1) > 0.8
    assert share(3) < 0.3


def test_private_modules_are_left_out(monkeypatch):
    def source(name: str) -> str:
        return f'def {name}():\n    """Does."""\n    return 1\n'

    modules = {"_a.py": "one", "b/_c/d.py": "two", "e/__init__.py": "three", "f.py": "four"}
    found = [(Path(path), source(name)) for path, name in modules.items()]
    monkeypatch.setattr(python_sources, "sources", lambda: iter(found))
    functions._all.cache_clear()
    try:
        assert [f.answer.split("(")[0][4:] for f in functions._all()] == ["three", "four"]
    finally:
        functions._all.cache_clear()
