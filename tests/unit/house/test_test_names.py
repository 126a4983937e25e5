"""Test modules have names of their own: pytest imports two of one name as one."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]


def test_no_two_test_modules_have_one_name() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert len(names) > 150
    assert [name for name, times in names.items() if times > 1] == []
