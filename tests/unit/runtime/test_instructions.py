"""The instructions of IFEval, each followed by one text and not by others."""

import json
from typing import Any

import pytest

from etude.compiler.plan.verifiers import Verifier
from etude.runtime.data.records.answers import right_answers
from etude.runtime.data.records.fields import Fields
from etude.runtime.verification import misfit
from etude.runtime.verification.instructions import CHECKS, follows, in_record

CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "keywords:existence": ({"keywords": ["sun", "a.c"]}, "The Sun and A.C", ["the sun", "sun abc"]),
    "keywords:frequency": (
        {"keyword": "tea", "frequency": 2, "relation": "at least"},
        "Tea or more tea",
        ["tea"],
    ),
    "keywords:forbidden_words": ({"forbidden_words": ["cat"]}, "concatenate", ["a Cat sat"]),
    "keywords:letter_frequency": (
        {"letter": "e", "let_frequency": 2, "let_relation": "less than"},
        "Enough",
        ["Evening"],
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"},
        'It costs 3.5 euros. "Really?"',
        ["One. Two! Three?", "A... B. C"],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        "***\none\n***\ntwo\n",
        ["one", "one *** two *** three", "one ***  *** two"],
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "at least"},
        "one, two - three",
        ["one two", "- - -"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "First\n\n\n\n'Then, second",
        ["First\n\nThen\n\nthird", "First\n\nAnd then", "Then"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        "[name], [street]",
        ["[name] and (street)"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.S."},
        "Bye\nP. S. more",
        ["PS more"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        "list:\n* one\n - two",
        ["* one", "* one\n* two\n* three", "**one**\n* two"],
    ),
    "detectable_format:constrained_response": (
        {},
        "Well: My answer is no.",
        ["No.", "my answer is"],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        "*one* and **two**",
        ["*one*", "** and **", "*one\n* *two"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        ["Section 1", "Section one, Section two"],
    ),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', ["{'a': 1}", "Here: {}"]),
    "detectable_format:title": ({}, "<<A poem>>\ntext", ["<< >>", "<A poem>"]),
    "combination:two_responses": ({}, "one\n******\ntwo", ["one", "a ****** a", "a****** ******b"]),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Write a line."},
        "write a line. Here it is.",
        ["Here it is: write a line."],
    ),
    "startend:end_checker": (
        {"end_phrase": "That is all"},
        '"So that is all"',
        ["That is all. Bye"],
    ),
    "startend:quotation": ({}, ' "yes" ', ['"yes', '"']),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NASA and ESA",
        ["NASA and Esa", "NASA-ESA"],
    ),
    "change_case:english_capital": ({}, "ALL, 7 OF THEM", ["All"]),
    "change_case:english_lowercase": ({}, "all, 7 of them", ["All"]),
    "punctuation:no_comma": ({}, "one; two", ["one, two"]),
}


def asked(name: str, arguments: dict[str, Any]) -> str:
    return json.dumps([name, arguments])


def test_every_instruction_has_a_case() -> None:
    assert CHECKS.keys() == CASES.keys() | {"language:response_language"}
    assert len(CHECKS) == 25


@pytest.mark.parametrize("name", CASES)
def test_a_text_follows_an_instruction_or_not(name: str) -> None:
    arguments, good, bad = CASES[name]
    assert misfit(Verifier(kind="ifeval"), [asked(name, arguments)]) == ""
    assert follows([asked(name, arguments)], good) == 1
    assert [follows([asked(name, arguments)], text) for text in bad] == [0] * len(bad)


def test_a_language_is_told() -> None:
    german = asked("language:response_language", {"language": "de"})
    assert follows([german], "Das ist ein deutscher Satz, und noch einer.") == 1
    assert follows([german], "This is an English sentence, and another one.") == 0


def test_all_instructions_have_to_be_followed_and_no_empty_text_does() -> None:
    both = [asked("punctuation:no_comma", {}), asked("change_case:english_lowercase", {})]
    assert [follows(both, text) for text in ("one two", "One two", "one, two", " ")] == [1, 0, 0, 0]


def test_a_record_of_ifeval_is_read() -> None:
    record = {
        "prompt": "Write.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [
            {"num_words": None, "relation": None},
            {"num_words": 3, "relation": "at least"},
        ],
    }
    found = right_answers(record, Fields(), "why")
    assert found == in_record(record)
    assert [json.loads(each) for each in found] == [
        ["punctuation:no_comma", {}],
        ["length_constraints:number_words", {"num_words": 3, "relation": "at least"}],
    ]


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("42", "`42` is no instruction of IFEval, as `instruction_id_list` names them"),
        (asked("keywords:missing", {}), "there is no instruction `keywords:missing`"),
        (asked("punctuation:no_comma", {"number": 1}), "has other arguments"),
        (asked("keywords:existence", {}), "has other arguments"),
        (
            asked("length_constraints:number_words", {"num_words": 1, "relation": "over"}),
            "`over` of `length_constraints:number_words` is neither at least nor less than",
        ),
    ],
)
def test_instructions_that_cannot_be_checked_are_told(instruction: str, reason: str) -> None:
    assert reason in misfit(Verifier(kind="ifeval"), [instruction])
