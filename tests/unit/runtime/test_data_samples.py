"""Sample corpora: always the same, never empty, and no module is imported to make them."""

import itertools
import re
import subprocess
import sys

import pytest

from etude.runtime.data.samples import python_sources, samples
from etude.runtime.errors import DataError


def take(sample: str, count: int | None, seed: int = 0) -> list[str]:
    return list(samples.documents(sample, count=count, seed=seed))


@pytest.mark.parametrize("sample", samples.SAMPLES)
def test_limited_repeatable_and_never_empty(sample):
    texts = take(sample, 120)
    assert len(texts) == 120
    assert all(text.strip() for text in texts)
    assert len(set(texts)) > 110
    assert take(sample, 120) == texts
    assert take(sample, 7) == texts[:7]
    assert take(sample, 0) == []


@pytest.mark.parametrize("sample", ["arithmetic", "needles"])
def test_generated_documents_depend_on_the_seed(sample):
    assert take(sample, 5, seed=1) != take(sample, 5, seed=2)
    assert len(take(sample, None)) == samples.GENERATED_DOCUMENTS


def test_arithmetic_is_right():
    problems = "".join(take("arithmetic", 200)).splitlines()
    signs = set()
    for problem in problems:
        a, sign, b, result = re.fullmatch(r"(\d+) ([+-]) (\d+) = (\d+)", problem).groups()  # type: ignore[union-attr]
        assert int(result) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        signs.add(sign)
    assert signs == {"+", "-"}


def test_docs_are_topics_then_docstrings():
    texts = take("python_docs", 400)
    assert any(text.startswith('The "assert" statement') for text in texts[:100])
    module = texts.index(next(text for text in texts if text.startswith("module abc\n")))
    assert any(text.startswith("class argparse.FileType(object)\n    ") for text in texts[module:])
    assert not any(re.match(r"(module|class) (\w+\.)*_", text) for text in texts)


def test_code_is_source_files_without_tests():
    texts = take("python_code", None)
    assert any("class ABCMeta" in text for text in texts)
    assert sum(len(text) for text in texts) > 1_000_000
    assert not any("import unittest\n" in text and "unittest.main()" in text for text in texts[:50])


def test_nothing_is_imported():
    program = (
        "import sys; from etude.runtime.data.samples import samples\n"
        "list(samples.documents('python_docs', count=100, seed=0))\n"
        "before = set(sys.modules)\n"
        "texts = list(samples.documents('python_docs', count=500, seed=0))\n"
        "assert any('module antigravity' in t or 'antigravity.' in t for t in texts)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_long_sources_are_cut_before_definitions():
    functions = [f"# about f{i}\n@wraps\ndef f{i}():\n    return '''\f'''\n\n\n" for i in range(50)]
    text = "import os\n\n" + "".join(functions)
    parts = samples.split_source(text, 200)
    assert "".join(parts) == text
    assert all(len(part) <= 200 for part in parts)
    assert all(part.startswith("# about f") for part in parts[1:])
    assert samples.split_source(text, len(text)) == [text]


def test_a_definition_that_is_too_long_stays_whole():
    long = "def f():\n" + "    x = 1\n" * 100
    assert samples.split_source("import a\n" + long + "def g(): ...\n", 50) == [
        "import a\n",
        long,
        "def g(): ...\n",
    ]


def test_a_sample_that_does_not_exist():
    with pytest.raises(DataError, match="no sample corpus `wikipedia`") as caught:
        take("wikipedia", 1)
    assert "python_docs" in caught.value.help


def test_a_python_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(python_sources.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(DataError, match="no standard library sources"):
        list(itertools.islice(samples.documents("python_code", count=1, seed=0), 1))


def test_arithmetic_asks_as_dialogs_what_it_asks_as_prompts():
    asked = list(samples.records("arithmetic", "prompts", count=200, seed=3))
    dialogs = list(samples.records("arithmetic", "dialogs", count=200, seed=3))
    for prompt, dialog in zip(asked, dialogs, strict=True):
        assert dialog["messages"][:1] == prompt["prompt"]
        assert dialog["messages"][1:] == [{"role": "assistant", "content": prompt["answer"]}]
        question = prompt["prompt"][0]["content"]
        read = re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", question)
        assert read
        a, sign, b = read.groups()
        result = int(a) + int(b) if sign == "+" else int(a) - int(b)
        assert prompt["answer"] == str(result)
        assert result >= 0
    assert asked != list(samples.records("arithmetic", "prompts", count=200, seed=4))
    with pytest.raises(DataError, match="has no preferences"):
        list(samples.records("arithmetic", "preferences", count=1, seed=0))
