"""What SECURITY.md promises of the code: nothing in it runs what a file holds, except where it is
meant. The other promises have tests of their own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("spec", "compiler", "runtime", "authoring", "lsp", "pages", "cli", "etude")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
MEANT = {
    ("compiler/costs/estimate.py", "exec"): "our own formulas",
    ("compiler/costs/formulas.py", "compile"): "the same",
    ("runtime/verification/__init__.py", "compile"): "finds errors of syntax, and runs nothing",
    ("runtime/verification/inside.py", "exec"): "answers of models, inside the sandbox",
    ("runtime/verification/inside.py", "compile"): "the same",
}
"""File and call → why it is there."""


def is_text(node: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def runs(call: ast.Call) -> str:
    """What a call may run, in a word; "" for nothing."""
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "compile" and not {"exec", "eval"} & {a.value for a in call.args if is_text(a)}:
        return ""  # a spec
    if name in ("eval", "exec", "compile", "os.system", "os.popen", "__import__"):
        return name
    if name.startswith(("pickle.load", "dill.", "marshal.load", "shelve.", "joblib.load")):
        return name
    if name == "torch.load" and given.get("weights_only") != "True":
        return name
    if name in ("yaml.load", "yaml.load_all") and "Loader" not in ast.unparse(call):
        return name
    if name.startswith(("yaml.unsafe_", "yaml.full_")):
        return name
    if given.get("shell") == "True" or given.get("allow_pickle") == "True":
        return "shell" if "shell" in given else "allow_pickle"
    if given.get("trust_remote_code", "False") != "False":
        return "trust_remote_code"
    return ""


def calls(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (found := runs(node)):
            yield node.lineno, found


def test_no_file_runs_what_another_file_holds() -> None:
    found = {
        (str(file.relative_to(ROOT)), what): line for file in FILES for line, what in calls(file)
    }
    assert found.keys() == MEANT.keys()


@pytest.mark.parametrize(
    "text",
    [
        *("eval(x)", "pickle.load(f)", "pickle.loads(b)", "torch.load(f)", "os.system(x)"),
        *("torch.load(f, weights_only=False)", "yaml.load(t)", "yaml.unsafe_load(t)"),
        *("subprocess.run(x, shell=True)", "np.load(f, allow_pickle=True)"),
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_it_would_be_seen(text: str) -> None:
    (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    assert runs(call)


def test_the_tests_that_hold_the_promises_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promised, _ = text.split("## What is not promised")
    named = re.findall(r"`((?:unit|property|integration|end_to_end)/[^`]+)`", promised)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
    for promise in promised.split("\n\n**")[1:]:
        assert "/test_" in promise, promise
