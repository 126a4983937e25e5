"""Records of well-known data sets are recognized and converted."""

from typing import Any

import pytest

from etude.runtime.data.records import records
from etude.runtime.data.records.fields import Fields
from etude.runtime.data.records.layouts import converted
from etude.runtime.data.records.records import rating as read_rating
from etude.runtime.errors import DataError

HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 1 + 1?\n\nAssistant:"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


DIALOGS: list[tuple[str, dict[str, Any], list[dict[str, str]]]] = [
    (
        "ShareGPT",
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "2"}]},
        [user("Q")],
    ),
    ("query and response", {"query": "Q", "response": "2"}, [user("Q")]),
    ("question and answer", {"question": "Q", "answer": "2", "id": 7}, [user("Q")]),
    ("Alpaca", {"instruction": "Add.", "input": "1 1", "output": "2"}, [user("Add.\n\n1 1")]),
    ("Alpaca", {"instruction": "Add.", "input": "", "output": "2"}, [user("Add.")]),
    ("Alpaca", {"instruction": "Add.", "output": "2"}, [user("Add.")]),
    (
        "Alpaca",
        {"instruction": "Add.", "output": "2", "system": "S"},
        [{"role": "system", "content": "S"}, user("Add.")],
    ),
]


@pytest.mark.parametrize(("layout", "record", "asked"), DIALOGS)
def test_dialogs(layout: str, record: dict[str, Any], asked: list[dict[str, str]]) -> None:
    found = converted(record, "dialogs")
    assert found
    assert found.layout == layout
    assert records.dialog(found.record, Fields()).text == [*asked, assistant("2")]


ULTRA = [{"response": f"r{n}", "overall_score": score} for n, score in enumerate((7, 9.5, 3))]
PREFERENCES: list[tuple[str, dict[str, Any], list[dict[str, str]], str, str]] = [
    (
        "HH",
        {"chosen": f"{HH} 2", "rejected": f"{HH} 3"},
        [user("Hi"), assistant("Hello."), user("1 + 1?")],
        "2",
        "3",
    ),
    (
        "ShareGPT",
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        [user("Q")],
        "a",
        "b",
    ),
    ("UltraFeedback", {"instruction": "Q", "completions": ULTRA}, [user("Q")], "r1", "r2"),
    (
        "HelpSteer",
        {"context": [user("Q")], "response1": "a", "response2": "b", "overall_preference": -2},
        [user("Q")],
        "a",
        "b",
    ),
    (
        "HelpSteer",
        {"prompt": "Q", "response_1": "a", "response_2": "b", "preference_strength": 1},
        [user("Q")],
        "b",
        "a",
    ),
]


@pytest.mark.parametrize(("layout", "record", "asked", "better", "worse"), PREFERENCES)
def test_preferences(
    layout: str, record: dict[str, Any], asked: list[dict[str, str]], better: str, worse: str
) -> None:
    found = converted(record, "preferences")
    assert found
    assert found.layout == layout
    made = records.preference(found.record, Fields())
    assert made.prompt == asked
    assert made.responses == [[assistant(better)], [assistant(worse)]]


@pytest.mark.parametrize(
    ("form", "record", "why"),
    [
        ("dialogs", {"prompt": "Q", "completion": "a", "label": False}, "not wanted"),
        (
            "preferences",
            {"prompt": "Q", "response_1": "a", "response_2": "b", "preference_strength": 0},
            "neither response is better",
        ),
        ("preferences", {"instruction": "Q", "completions": ULTRA[:1]}, "fewer than two"),
        ("preferences", {"instruction": "Q", "completions": [ULTRA[0]] * 2}, "the same"),
    ],
)
def test_what_ranks_nothing_or_is_not_wanted_is_refused(
    form: str, record: dict[str, Any], why: str
) -> None:
    with pytest.raises(DataError) as found:
        converted(record, form)
    assert why in found.value.message


@pytest.mark.parametrize(
    ("form", "record"),
    [
        ("dialogs", {"messages": [user("Q"), assistant("a")], "instruction": "x", "output": "y"}),
        ("dialogs", {"prompt": "Q", "completion": "a"}),
        ("dialogs", {"instruction": "x"}),
        ("dialogs", {"instruction": "x", "input": 3, "output": "y"}),
        ("preferences", {"prompt": "Q", "chosen": "a", "rejected": "b"}),
        ("preferences", {"chosen": "Q a", "rejected": "Q b"}),
        ("preferences", {"prompt": "Q", "response1": "a", "response2": "b"}),
    ],
)
def test_other_records_are_read_as_they_are(form: str, record: dict[str, Any]) -> None:
    assert converted(record, form) is None


@pytest.mark.parametrize(
    ("layout", "record"),
    [
        (
            "ShareGPT, with labels",
            {
                "conversations": [
                    {"from": "human", "value": "Q"},
                    {"from": "gpt", "value": "a"},
                ],
                "kto_tag": True,
            },
        ),
        ("Alpaca, with labels", {"instruction": "Q", "input": "", "output": "a", "label": True}),
        ("question and answer, with labels", {"question": "Q", "answer": "a", "label": True}),
        ("KTO, with `kto_tag`", {"messages": [user("Q"), assistant("a")], "kto_tag": True}),
        (None, {"prompt": "Q", "completion": "a", "label": True}),
        (None, {"messages": [user("Q"), assistant("a")], "label": True}),
    ],
)
def test_ratings(layout: str | None, record: dict[str, Any]) -> None:
    found = converted(record, "ratings")
    assert (found and found.layout) == layout
    rating = read_rating(found.record if found else record, Fields())
    asked, said = (
        text if isinstance(text, str) else text[0]["content"]
        for text in (rating.prompt, rating.answer)
    )
    assert (asked, said, rating.good) == ("Q", "a", True)


def test_tool_calls_and_their_answers_are_messages_of_their_roles() -> None:
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "Oslo"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "Rain."},
    ]
    found = converted({"conversations": turns, "tools": "[]"}, "dialogs")
    assert found
    made = records.dialog(found.record, Fields()).text
    assert [one["role"] for one in made if isinstance(one, dict)] == [
        *("user", "assistant", "tool", "assistant")
    ]
    turns[1]["value"] = "look at Oslo"
    with pytest.raises(DataError) as refused:
        converted({"conversations": turns}, "dialogs")
    assert "not JSON with `name` and `arguments`" in refused.value.message


def test_a_wanted_completion_is_read_as_it_is() -> None:
    record = {"prompt": "Q", "completion": "a", "label": True}
    found = converted(record, "dialogs")
    assert found
    assert found.record == record
