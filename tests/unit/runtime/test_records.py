"""Records in TRL's formats become tokens; what is wrong with one is said in a sentence."""

import numpy as np
import pytest
from test_dialog import LLAMA3, say

from etude.runtime.data.dialogs.dialog import renderer, special_tokens
from etude.runtime.data.dialogs.encode import CONTENT, OTHER, TERMINATION
from etude.runtime.data.records.records import Dialog, Fields, Preference, Prompt, Rating
from etude.runtime.data.records.records import dialog as read_dialog
from etude.runtime.data.records.records import preference as read_preference
from etude.runtime.data.records.records import prompt as read_prompt
from etude.runtime.data.records.records import rating as read_rating
from etude.runtime.data.records.similar import similarity, unlike
from etude.runtime.data.records.tokens import Tokens
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError

ASK = say("user: Sky?")
BLUE, RED, GREEN = (say(f"assistant: {color}.") for color in ("Blue", "Red", "Green"))


@pytest.fixture(scope="module")
def made():
    return tokenizer.byte_level(special_tokens(LLAMA3))


@pytest.fixture
def tokens(made, tmp_path):
    return Tokens(made, renderer(LLAMA3, made, tmp_path))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": ASK + BLUE}, Dialog(ASK + BLUE)),
        ({"prompt": ASK, "completion": BLUE}, Dialog(ASK + BLUE)),
        ({"prompt": "Sky?", "completion": BLUE}, Dialog(ASK + BLUE)),
        ({"prompt": "The sky is", "completion": " blue."}, Dialog(" blue.", "The sky is")),
        ({"text": "The sky is blue."}, Dialog("The sky is blue.")),
        (
            {"messages": ASK + BLUE, "tools": '[{"name": "f"}]'},
            Dialog(ASK + BLUE, tools=[{"name": "f"}]),
        ),
        ({"messages": None, "prompt": ASK, "completion": BLUE, "tools": None}, Dialog(ASK + BLUE)),
    ],
)
def test_dialogs(record, expected):
    assert read_dialog(record, Fields()) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": ASK, "completion": BLUE, "label": True}, Rating(ASK, BLUE, True)),
        ({"prompt": "Sky?", "completion": "Blue.", "label": 0}, Rating("Sky?", "Blue.", False)),
        ({"prompt": "Sky?", "completion": BLUE, "label": True}, Rating(ASK, BLUE, True)),
        ({"messages": ASK + RED, "label": False}, Rating(ASK, RED, False)),
        ({"messages": ASK + BLUE + ASK + RED, "label": 1}, Rating(ASK + BLUE + ASK, RED, True)),
        (
            {"prompt": "Sky?", "completion": "Blue.", "system": "Be.", "label": True},
            Rating([*say("system: Be."), *ASK], BLUE, True),
        ),
    ],
)
def test_ratings(record, expected):
    assert read_rating(record, Fields()) == expected


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": ASK, "completion": BLUE}, "no field `label`; the fields are prompt, complet"),
        ({"prompt": ASK, "completion": BLUE, "label": None}, "`label` is null"),
        ({"prompt": ASK, "completion": BLUE, "label": "good"}, '`label` is "good", and not true'),
        ({"prompt": ASK, "completion": BLUE, "label": 2}, "`label` is 2, and not true or false"),
        ({"prompt": ASK, "label": True}, "no `prompt` and `completion`"),
        ({"prompt": "", "completion": BLUE, "label": True}, "the prompt is empty"),
        ({"prompt": ASK, "completion": " ", "label": True}, "`completion` is empty"),
        ({"prompt": ASK, "completion": ASK, "label": True}, "`completion` has a message of `user`"),
        ({"messages": ASK, "label": True}, "`messages` is empty"),
    ],
)
def test_what_is_no_rating_is_said(record, reason):
    with pytest.raises(DataError) as error:
        read_rating(record, Fields())
    assert reason in error.value.message


def test_a_rating_is_a_prompt_and_its_answer(tokens):
    found = tokens.rating(Rating(ASK, BLUE, False))
    (prompt, answer), good = found.branches, found.good
    pair = tokens.preference(Preference(ASK, [BLUE, RED]))
    assert (prompt, answer, good) == (*pair.branches[:2], False)
    assert found.tokens.tolist() == pair.tokens[: prompt + answer].tolist()
    assert found.parts.tolist() == pair.parts[: prompt + answer].tolist()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": ASK, "chosen": BLUE, "rejected": RED}, Preference(ASK, [BLUE, RED])),
        (
            {"prompt": ASK, "chosen": BLUE, "rejected": RED, "edited": GREEN},
            Preference(ASK, [GREEN, BLUE, RED]),
        ),
        ({"prompt": ASK, "chosen": BLUE, "edited": GREEN}, Preference(ASK, [GREEN, BLUE])),
        ({"chosen": ASK + BLUE, "rejected": ASK + RED}, Preference(ASK, [BLUE, RED])),
        (
            {"prompt": "Sky?", "chosen": ASK + BLUE, "rejected": ASK + RED},
            Preference(ASK, [BLUE, RED]),
        ),
        (
            {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Red."},
            Preference("Sky?", ["Blue.", "Red."]),
        ),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is black."},
            Preference("The sky is", [" blue.", " black."]),
        ),
        (
            {
                "prompt": ASK,
                "responses": ["Blue.", "Red.", "Green."],
                "chosen": 2,
                "rejected": 0,
                "edited": None,
            },
            Preference(ASK, [GREEN, BLUE]),
        ),
        (
            {"prompt": ASK, "responses": ["Blue."], "chosen": "Red.", "rejected": 0},
            Preference(ASK, [RED, BLUE]),
        ),
        ({"prompt": ASK, "ranked": [GREEN, RED, BLUE]}, Preference(ASK, [GREEN, RED, BLUE])),
        ({"prompt": "Sky?", "ranked": ["a", "b"]}, Preference("Sky?", ["a", "b"])),
        # Where one answer continues, the other answer alone is still an answer.
        (
            {"chosen": ASK + BLUE + ASK + RED, "rejected": ASK + BLUE + ASK + GREEN},
            Preference(ASK + BLUE + ASK, [RED, GREEN]),
        ),
    ],
)
def test_preferences(record, expected):
    assert read_preference(record, Fields()) == expected


def test_a_margin_says_by_how_much_the_better_response_is_better():
    record = {"prompt": ASK, "chosen": BLUE, "rejected": RED, "margin": 1.5}
    assert read_preference(record, Fields()).margin is None
    assert read_preference(record, Fields(), margins=True).margin == 1.5
    own = {**record, "strength": 2}
    assert read_preference(own, Fields({"margin": "strength"}), margins=True).margin == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"chosen": BLUE, "rejected": RED}, "no field `margin`, which the stage's `margin` needs"),
        ({"chosen": BLUE, "rejected": RED, "margin": -1}, "`margin` is -1, and not a number of 0"),
        ({"chosen": BLUE, "rejected": RED, "margin": True}, "`margin` is true, and not a number"),
        (
            {"ranked": [BLUE, RED, GREEN], "margin": 1},
            "`margin` is that of two responses, and the record has 3",
        ),
        ({"ranked": [BLUE]}, "`ranked` is not a list of two or more responses, the best first"),
        ({"ranked": "Blue."}, "`ranked` is not a list of two or more"),
        ({"ranked": [BLUE, None]}, "`ranked[1]` is null"),
        ({"ranked": [BLUE, RED, BLUE], "margin": 0}, "the record has 3"),
    ],
)
def test_what_is_no_margin_or_ranking_is_said(record, reason):
    with pytest.raises(DataError) as error:
        read_preference({"prompt": ASK, **record}, Fields(), margins=True)
    assert reason in error.value.message


def test_prompts():
    assert read_prompt({"prompt": ASK}, Fields()) == Prompt(ASK)
    assert read_prompt({"messages": ASK}, Fields()).normalized() == {"messages": ASK, "tools": None}
    assert read_prompt({"prompt": "Sky?"}, Fields()).normalized() == {"prompt": "Sky?"}


def test_other_names_of_fields():
    fields = Fields({"prompt": "question", "chosen": "better", "rejected": "worse"})
    record = {"question": "a", "better": "b", "worse": "c", "chosen": "no"}
    assert read_preference(record, fields) == Preference("a", ["b", "c"])
    with pytest.raises(DataError, match="no field `better`; the fields are question, worse"):
        read_preference({"question": "a", "worse": "c"}, fields)


@pytest.mark.parametrize(
    ("read", "record", "reason"),
    [
        (
            read_dialog,
            {"body": "x"},
            "no `messages`, or `prompt` and `completion`; the fields are body",
        ),
        (read_dialog, {"prompt": "x"}, "no field `completion`"),
        (read_dialog, {"completion": "x"}, "no field `prompt`"),
        (read_dialog, {"messages": "x"}, "`messages` is not a list of messages"),
        (read_dialog, {"messages": [3]}, "message 1 is not an object"),
        (read_dialog, {"prompt": " ", "completion": "x"}, "the prompt is empty"),
        (read_dialog, {"prompt": "x", "completion": " "}, "the completion is empty"),
        (read_dialog, {"prompt": ASK, "completion": ASK}, "`completion` has a message of `user`"),
        (read_dialog, {"text": "\ud800"}, "lone surrogate"),
        (read_dialog, {"messages": ASK + BLUE, "tools": "x"}, "`tools` is not a list"),
        (read_preference, {"prompt": ASK, "chosen": BLUE}, "no ranking: there is `chosen`"),
        (read_preference, {"prompt": ASK, "rejected": RED}, "no field `chosen`"),
        (
            read_preference,
            {"prompt": ASK, "responses": ["a", "b"], "chosen": None},
            "`chosen` is null: the record is not labelled yet",
        ),
        (
            read_preference,
            {"prompt": ASK, "responses": ["a"], "chosen": 1, "rejected": 0},
            "`chosen` is 1, which is not one of `responses`",
        ),
        (
            read_preference,
            {"prompt": ASK, "chosen": BLUE, "rejected": BLUE},
            "`chosen` and `rejected` are equal",
        ),
        (
            read_preference,
            {"prompt": "a", "chosen": "b", "rejected": "c", "edited": "b"},
            "`edited` and `chosen` are equal",
        ),
        (read_preference, {"prompt": [], "chosen": BLUE, "rejected": RED}, "the prompt is empty"),
        (
            read_preference,
            {"chosen": ASK + BLUE, "rejected": say("user: Sea?") + RED},
            "do not begin with the same prompt",
        ),
        (read_preference, {"chosen": "abc", "rejected": "abd"}, "not begin with the same prompt"),
        (read_preference, {"chosen": BLUE, "rejected": RED}, "not begin with the same prompt"),
        (read_preference, {"chosen": "a b", "rejected": RED}, "messages and others plain text"),
        (
            read_preference,
            {"prompt": ASK, "chosen": BLUE + ASK, "rejected": RED},
            "`chosen` has a message of `user` where the assistant should answer",
        ),
        (read_preference, {"prompt": ASK, "chosen": [], "rejected": RED}, "`chosen` is empty"),
        (read_prompt, {"text": "a"}, "no field `prompt`"),
        (read_prompt, {"prompt": "\n"}, "the prompt is empty"),
        (read_prompt, {"messages": say("system: a")}, "the prompt is empty"),
        (read_prompt, {"messages": ASK + BLUE}, "ends with a message of the assistant"),
    ],
)
def test_what_is_wrong_with_a_record(read, record, reason):
    with pytest.raises(DataError, match=reason):
        read(record, Fields())


def test_plain_text_is_rendered_without_a_template(tokens, made):
    record = tokens.dialog(Dialog(" blue<|eot_id|>", "Sky"))
    assert record.tokens.tolist() == [256, *b"Sky", *b" blue<|eot_id|>", 257]
    assert record.parts.tolist() == [OTHER] * 4 + [CONTENT] * 15 + [TERMINATION]
    assert record.branches == ()
    whole = tokens.dialog(Dialog("Sky blue"))
    assert whole.parts.tolist() == [OTHER] + [CONTENT] * 8 + [TERMINATION]


def test_preferences_as_branches(tokens, made, tmp_path):
    record = tokens.preference(Preference(ASK, [GREEN, BLUE, RED]))
    each = renderer(LLAMA3, made, tmp_path)
    head = each.render(ASK, prompt=True).ids
    assert record.branches[0] == len(head)
    assert record.tokens[: len(head)].tolist() == head
    assert not record.parts[: len(head)].any()
    begin = len(head)
    for response, length in zip([GREEN, BLUE, RED], record.branches[1:], strict=True):
        branch = record.tokens[begin : begin + length]
        assert head + branch.tolist() == each.render(ASK + response).ids
        assert record.parts[begin : begin + length].tolist() == [CONTENT] * (length - 1) + [2]
        begin += length
    assert begin == len(record.tokens)
    assert (record.tokens.dtype, record.parts.dtype) == (np.int64, np.uint8)


def test_plain_preferences(tokens):
    record = tokens.preference(Preference("a b", [" c", " dd"]))
    assert record.tokens.tolist() == [256, *b"a b", *b" c", 257, *b" dd", 257]
    assert record.branches == (4, 3, 4)


def test_dialogs_without_a_protocol(made):
    plain = Tokens(made, None)
    assert len(plain.dialog(Dialog("abc")).tokens) == 5
    with pytest.raises(DataError, match="no dialog protocol"):
        plain.dialog(Dialog(ASK + BLUE))


def test_similarity():
    assert similarity("abcd", "abcd") == similarity("", "") == 1
    assert similarity("abcd", "abce") == pytest.approx(0.75)
    assert similarity("ab", "cd") == 0


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["abcdefghij", "abcdefghiX"], [0]),
        (["abcdefghij", "XXXXXXXXXX"], [0, 1]),
        # edited and chosen are alike: edited against rejected is left
        (["abcdefghij", "abcdefghiX", "qqqqqqqqqq"], [0, 2]),
        # chosen and rejected are alike: the worse one goes
        (["qqqqqqqqqq", "abcdefghij", "abcdefghiX"], [0, 1]),
        (["abcdefghij", "abcdefghiX", "abcdefghiY"], [0]),
    ],
)
def test_the_better_of_similar_responses_stays(texts, kept):
    assert unlike(texts, 0.8) == kept
    assert unlike(texts, 0.9) == list(range(len(texts)))


def test_what_is_proposed_for_preferences_without_a_prompt_can_be_followed():
    """Responses are never proposed as dialogs; a dialog beside them may be the prompt."""
    other = [{"role": "user", "content": "Why?"}]
    with pytest.raises(DataError, match="not begin with the same prompt") as problem:
        read_preference({"chosen": ASK + BLUE, "rejected": other + RED}, Fields({}))
    assert problem.value.help == ""
    record: dict = {
        "conversations": [{"from": "human", "value": "Sky?"}],
        "chosen": {"from": "gpt", "value": "Blue"},
        "rejected": {"from": "gpt", "value": "Red"},
    }
    named = {"role": "from", "content": "value"}
    with pytest.raises(DataError, match="not begin with the same prompt") as problem:
        read_preference(record, Fields(named))
    assert 'fields = { prompt = "conversations", role = "from",' in problem.value.help
    found = read_preference(record, Fields({**named, "prompt": "conversations"}))
    assert found.prompt == [{"role": "user", "content": "Sky?"}]
