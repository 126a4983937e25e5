"""What is said where the process that builds models with torchtitan has ended."""

import pytest

from etude.runtime.rehearsal import _died


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        ("one\nboom: two\n \n", 3, "has ended with exit code 3: boom: two"),
        ("", -6, "has ended on signal 6: there is no message"),
        ("", -9, "was killed"),
        ("ModuleNotFoundError: No module named 'torchtitan'", 1, "No module named 'torchtitan'"),
    ],
)
def test_the_reason_is_said_with_the_last_line_of_its_log(log: str, code: int, words: str) -> None:
    problem = _died(log, code)
    assert words in problem.message
    assert "{" not in problem.message
    assert problem.help
