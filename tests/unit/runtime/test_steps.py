"""Answers in steps become tokens step by step; what is wrong with one is said in a sentence."""

import numpy as np
import pytest
from test_dialog import LLAMA3, say

from etude.runtime.data.dialogs.dialog import renderer, special_tokens
from etude.runtime.data.dialogs.encode import CONTENT, OTHER, Piece, in_steps
from etude.runtime.data.order.long import Long, TooLong
from etude.runtime.data.records.layouts import converted
from etude.runtime.data.records.records import Fields, Preference, Solution
from etude.runtime.data.records.records import solution as read_solution
from etude.runtime.data.records.tokens import Tokens, require_text
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError
from etude.runtime.sampling.prompts import Protocol

ASK = say("user: Sum?")
STEPS = ["1 + 1 = 2.", "So 3."]
GOOD = {"prompt": ASK, "completions": STEPS, "labels": [True, False]}


@pytest.fixture(scope="module")
def made():
    return tokenizer.byte_level(special_tokens(LLAMA3))


@pytest.fixture
def tokens(made, tmp_path):
    return Tokens(made, renderer(LLAMA3, made, tmp_path))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (GOOD, Solution(ASK, STEPS, [True, False])),
        (GOOD | {"labels": [1, 0]}, Solution(ASK, STEPS, [True, False])),
        (GOOD | {"prompt": "Sum?"}, Solution("Sum?", STEPS, [True, False])),
        (
            GOOD | {"prompt": "Sum?", "system": "Be."},
            Solution([*say("system: Be."), *ASK], STEPS, [True, False]),
        ),
    ],
)
def test_solutions(record, expected):
    assert read_solution(record, Fields(), "\n") == expected


def test_fields_have_other_names():
    record = {"question": ASK, "parts": STEPS, "marks": [True, True]}
    names = {"prompt": "question", "completions": "parts", "labels": "marks"}
    assert read_solution(record, Fields(names), "\n") == Solution(ASK, STEPS, [True, True])


@pytest.mark.parametrize(
    ("changed", "reason", "help"),
    [
        ({"labels": [True]}, "there are 2 steps, but 1 labels", "one label in `labels`"),
        ({"labels": None}, "`labels` is not a list of true", "write true for each step"),
        ({"labels": ["+", "-"]}, "`labels` is not a list of true", "write true for each step"),
        ({"completions": "1 + 1"}, "`completions` is not a list of texts", "the steps of one"),
        ({"completions": [], "labels": []}, "`completions` has no steps", "remove the line"),
        ({"completions": ["a", "\ud83d"]}, "`completions` is not valid Unicode", None),
        ({"completions": ["a", " "]}, "step 2 of `completions` is empty", "remove it, and its"),
        (
            {"completions": ["a\nb", "c"]},
            'step 1 of `completions` has the separator "\\n" in it',
            "write another `separator` in the stage",
        ),
        ({"prompt": ""}, "the prompt is empty", None),
        ({"prompt": None}, "`prompt` is null", "give it a value"),
    ],
)
def test_what_is_no_solution_is_said(changed, reason, help):
    with pytest.raises(DataError) as error:
        read_solution(GOOD | changed, Fields(), "\n")
    assert reason in error.value.message
    assert help is None or help in (error.value.help or "")


def test_labels_have_to_be_there():
    record = {name: value for name, value in GOOD.items() if name != "labels"}
    with pytest.raises(DataError, match="no field `labels`; the fields are prompt, comp") as error:
        read_solution(record, Fields(), "\n")
    assert (error.value.help or "").startswith("write a list in `labels`: true for each step")


@pytest.mark.parametrize(
    ("record", "help"),
    [
        ({"prompt": "Sum?", "completions": STEPS, "ratings": [1, 0]}, '{ labels = "ratings" }'),
        (
            {"question": "Sum?", "steps": STEPS, "labels": [1, 0]},
            '{ prompt = "question", completions = "steps" }',
        ),
        ({"problem": ASK, "completions": STEPS, "labels": [1, 0]}, '{ prompt = "problem" }'),
        ({"prompt": "Sum?", "answer": 2, "labels": [1, 0]}, "steps of its answer in `completions`"),
    ],
)
def test_fields_of_other_names_are_found(record, help):
    with pytest.raises(DataError) as error:
        read_solution(record, Fields(), "\n")
    assert help in (error.value.help or "")


def texts(made, record):
    ends = np.cumsum(record.branches)
    pieces = np.split(record.tokens, ends[:-1])
    return [made.decode(piece.tolist(), skip_special_tokens=False) for piece in pieces]


def test_a_step_ends_with_its_separator_and_the_last_with_the_answer(made, tokens):
    """The tokens are those of the answer as a whole."""
    record = tokens.solution(read_solution(GOOD, Fields(), "\n"), "\n")
    assert texts(made, record)[1:] == ["1 + 1 = 2.\n", "So 3.<|eot_id|>"]
    assert record.labels == (True, False)
    said = [{"role": "assistant", "content": "\n".join(STEPS)}]
    whole = tokens.preference(Preference(ASK, [said]))
    assert record.tokens.tolist() == whole.tokens.tolist()
    assert record.parts.tolist() == whole.parts.tolist()
    plain = tokens.solution(Solution("Sum?", STEPS, [True, False]), "\n")
    assert texts(made, plain)[1:] == ["1 + 1 = 2.\n", "So 3.<|end_of_text|>"]


def test_a_judge_cuts_answers_as_training_does(made, tmp_path, tokens):
    protocol = Protocol(LLAMA3, made, tmp_path)
    prompt = protocol.prompt({"messages": ASK}, "")

    def cut(text: str) -> list[str]:
        message = {"role": "assistant", "content": text}
        return texts(made, protocol.stepped(prompt, message, "\n"))[1:]

    learned = tokens.solution(read_solution(GOOD, Fields(), "\n"), "\n")
    judged = protocol.stepped(prompt, {"role": "assistant", "content": "\n".join(STEPS)}, "\n")
    assert judged.tokens.tolist() == learned.tokens.tolist()
    assert judged.branches == learned.branches
    assert cut("one") == ["one<|eot_id|>"]
    assert cut("one\n\n\ntwo\n") == ["one\n\n\n", "two<|eot_id|>"]
    assert cut(" ") == ["<|eot_id|>"]
    # What the prompt's own answers say is no step.
    earlier = protocol.prompt({"messages": [*ASK, *say("assistant: a\nb"), *ASK]}, "")
    found = protocol.stepped(earlier, {"role": "assistant", "content": "c\nd"}, "\n")
    assert texts(made, found)[1:] == ["c\n", "d<|eot_id|>"]


@pytest.mark.parametrize(
    ("text", "separator", "steps"),
    [
        ("a\nb", "\n", ["a\n", "b"]),
        ("\n\na\nb\n", "\n", ["\n\na\n", "b\n"]),
        ("a\n\n \nb", "\n", ["a\n\n \n", "b"]),
        ("a\n\nb\nc", "\n\n", ["a\n\n", "b\nc"]),
        ("a ки b ки", "ки", ["a ки", " b ки"]),
        ("\n", "\n", ["\n"]),
    ],
)
def test_texts_are_cut_at_separators(text, separator, steps):
    pieces = [Piece("H"), Piece(text, CONTENT, free=True), Piece("E")]
    found = in_steps(pieces, separator)
    joined: dict[int, str] = {}
    for piece in found:
        joined[piece.step] = joined.get(piece.step, "") + piece.text
    expected = [*steps]
    expected[0], expected[-1] = "H" + expected[0], expected[-1] + "E"
    if len(steps) == 1:
        expected = [f"H{steps[0]}E"]
    assert [*joined.values()] == expected


def test_steps_that_share_a_token_are_refused(tmp_path):
    made = tokenizer.byte_level(special_tokens(LLAMA3))
    made.add_tokens(["x|y|z"])
    tokens = Tokens(made, renderer(LLAMA3, made, tmp_path))
    with pytest.raises(DataError, match="its 3 steps are 1 once they are joined"):
        tokens.solution(Solution(ASK, ["x", "y", "z"], [True] * 3), "|")


def test_a_special_token_is_no_separator(made):
    """Of a chat template only the tokenizer knows which texts are tokens."""
    for separator in ("<|eot_id|>", "\n<|eot_id|>"):
        with pytest.raises(DataError, match=r"has <\|eot_id\|> in it, a special token"):
            require_text(separator, made)
    require_text("<|step|>", made)


def test_long_solutions_are_cut_after_a_whole_step(tokens):
    record = tokens.solution(read_solution(GOOD, Fields(), "\n"), "\n")
    prompt, first, _ = record.branches
    with pytest.raises(TooLong, match="the prompt with all steps takes"):
        Long(prompt + first, "refuse").fit(record)
    cut = Long(prompt + first, "truncate").fit(record)
    assert cut
    assert (cut.branches, cut.labels, len(cut.tokens)) == (
        (prompt, first),
        (True,),
        prompt + first,
    )
    assert cut.parts[:prompt].tolist() == [OTHER] * prompt
    assert Long(prompt + first - 1, "truncate").fit(record) is None
    assert Long(prompt + first - 1, "drop").fit(record) is None


def test_math_shepherd():
    record = {
        "input": "How many? Step 1: 2 + 2 = 4. ки\nStep 2: The answer is: 5 ки",
        "label": "How many? Step 1: 2 + 2 = 4. +\nStep 2: The answer is: 5 -",
        "task": "GSM8K",
    }
    found = converted(record, "solutions")
    assert found
    assert found.layout == "Math-Shepherd"
    asked = say("user: How many?")
    steps = ["Step 1: 2 + 2 = 4.", "Step 2: The answer is: 5"]
    assert read_solution(found.record, Fields(), "\n") == Solution(asked, steps, [True, False])
    for changed, reason in (
        ({"label": record["input"]}, "neither + nor - behind step 1"),
        ({"input": "How many? 4 ки", "label": "How many? 4 +"}, "no `Step 1:`"),
    ):
        with pytest.raises(DataError, match=reason.replace("+", r"\+")):
            converted(record | changed, "solutions")
    assert converted(GOOD, "solutions") is None
