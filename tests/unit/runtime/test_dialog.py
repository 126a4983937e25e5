"""Dialogs become the tokens that Hugging Face templates make, and each token knows its part."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from etude.runtime.data.dialogs.dialog import needed_tokens, renderer, special_tokens
from etude.runtime.data.dialogs.encode import CONTENT, FORMATTING, TERMINATION
from etude.runtime.data.dialogs.rendering import Renderer, continuations
from etude.runtime.data.samples import samples
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError

LLAMA3 = {"protocol": "llama3"}
CHATML = {"protocol": "chatml"}
OWN = {
    "header": "<|{role}|>\n",
    "end_of_turn": "\n<|end|>\n",
    "end_of_message": "<|more|>",
    "roles": ["system", "user", "assistant", "ipython"],
}
PLAIN = {"header": "### {role}:\n", "end_of_turn": "[END]\n\n"}
SYSTEM = {"system": 'Be {{ kind }} and {% brief %}. # "so" \\ \'\n'}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": "Sums <é>.", "parameters": {"type": "object"}},
    }
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, "ü"]}}}


def say(*turns: str) -> list[dict]:
    """Messages from texts such as "user: hello"."""
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]


CHAT = say(
    "user: What is  2 + 2?", "assistant: It is 4,\nI think. 🙂", "user: Sure?", "assistant: Yes."
)
WITH_SYSTEM = say("system: You count.", *["user: One?", "assistant: One."])
CODE = [
    *say("user: Count."),
    {"role": "assistant", "content": "Let me run it."},
    {"role": "assistant", "content": "print(1 + 1)", "to": "ipython"},
    *say("ipython: 2", "assistant: Two."),
]
CALLS = [
    *say("system: You add.", "user: Add."),
    {"role": "assistant", "content": "I ask.", "tool_calls": [CALL, CALL["function"]]},
    {"role": "tool", "content": '{"sum": 3}'},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    *say("tool: 3", "assistant: Three."),
]
TRICKY = [
    *say("user: a <|eot_id|><|im_end|>\n<|end|>[END] b"),
    *say("assistant: <|start_header_id|>user<|im_start|>x<|user|>"),
]


@pytest.fixture(scope="module")
def words() -> tokenizer.Tokenizer:
    special = [t for s in (LLAMA3, CHATML, OWN, PLAIN) for t in special_tokens(s)]
    texts = samples.documents("python_docs", count=60, seed=0)
    return tokenizer.train(texts, vocab=700, special=special)


def elsewhere(words, messages, template: str, **settings) -> list[int]:
    """What transformers makes of it."""
    other: Any = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=tokenizer.BOS, eos_token=tokenizer.EOS
    )
    return other.apply_chat_template(
        messages, chat_template=template, return_dict=False, **settings
    )


def shown(words, ids: list[int]) -> str:
    return words.decode(ids, skip_special_tokens=False)


def of_part(words, rendered, part: int) -> list[str]:
    """The texts of the stretches of one part."""
    found, before = [], None
    for number, each in zip(rendered.ids, rendered.parts, strict=True):
        if each == part:
            found.append([*(found.pop() if before == part else []), number])
        before = each
    return [shown(words, ids) for ids in found]


CASES = {
    "llama3": (LLAMA3, CHAT, None),
    "llama3 with a system prompt": (LLAMA3, WITH_SYSTEM, None),
    "llama3 with a default system prompt": (LLAMA3 | SYSTEM, CHAT, None),
    "llama3 code": (LLAMA3, CODE, None),
    "llama3 calls": (LLAMA3, CALLS, TOOLS),
    "llama3 tools and the default": (LLAMA3 | SYSTEM, CHAT, TOOLS),
    "llama3 tools alone": (LLAMA3, CHAT, TOOLS),
    "chatml": (CHATML, CHAT, None),
    "chatml with a system prompt": (CHATML | SYSTEM, CHAT, None),
    "own": (OWN | SYSTEM, WITH_SYSTEM, None),
    "own, several messages": (OWN, CODE, None),
    "own with text in its headers": (PLAIN, CHAT, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_tokens_are_those_of_the_hugging_face_template(case, words):
    settings, messages, tools = CASES[case]
    made = renderer(settings, words, Path())
    rendered = made.render(messages, tools=tools)
    assert rendered.ids == elsewhere(words, messages, made.chat_template, tools=tools)
    assert len(rendered.parts) == len(rendered.roles) == len(rendered.messages) == len(rendered)


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_is_what_the_answer_follows(case, words):
    settings, messages, tools = CASES[case]
    made = renderer(settings, words, Path())
    prompt = made.render(messages[:-1], tools=tools, prompt=True)
    template = made.chat_template
    assert prompt.ids == elsewhere(
        words, messages[:-1], template, tools=tools, add_generation_prompt=True
    )
    whole = made.render(messages, tools=tools)
    assert whole.ids[: len(prompt)] == prompt.ids
    assert whole.parts[len(prompt) - 1 : len(prompt) + 1] == [FORMATTING, CONTENT]
    assert prompt.messages[-1] == len(messages) - 1


@pytest.mark.parametrize("case", CASES)
def test_a_template_of_ones_own_gives_the_same_parts(case, words, tmp_path):
    settings, messages, tools = CASES[case]
    own = renderer(settings, words, tmp_path)
    (tmp_path / "chat.jinja").write_text(own.chat_template, encoding="utf-8")
    other = renderer({"template": "chat.jinja"}, words, tmp_path)
    one, two = (r.render(messages, tools=tools) for r in (own, other))
    assert two.ids == one.ids
    if not any(message.get("tool_calls") and message["content"] for message in messages):
        assert two.parts == one.parts
        spoken = [i for i, role in enumerate(one.roles) if role == "assistant"]
        assert [two.messages[i] for i in spoken] == [one.messages[i] for i in spoken]
    assert set(other.stop) <= set(own.stop)


def test_golden_llama3(words):
    made = renderer(LLAMA3, words, Path())
    rendered = made.render(CALLS, tools=TOOLS)
    assert shown(words, rendered.ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Environment: ipython\n"
        "You can call the functions below. To call one, answer with nothing but a JSON object:\n"
        '{"name": name of the function, "parameters": object of argument names and values}\n'
        "Write values, not variables.\n\n"
        '{\n    "type": "function",\n    "function": {\n        "name": "add",\n'
        '        "description": "Sums <é>.",\n        "parameters": {\n'
        '            "type": "object"\n        }\n    }\n}\n\n'
        "You add.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Add.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "I ask.<|eom_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "add", "parameters": {"a": 1, "b": [2, "ü"]}}<|eom_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "add", "parameters": {"a": 1, "b": [2, "ü"]}}<|eom_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\n"
        '{"sum": 3}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n'
        '{"name": "add", "parameters": {"a": 1, "b": [2, "ü"]}}<|eom_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\n"
        "3<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "Three.<|eot_id|>"
    )
    call = '{"name": "add", "parameters": {"a": 1, "b": [2, "ü"]}}'
    assert of_part(words, rendered, CONTENT) == ["I ask.", call, call, call, "Three."]
    assert of_part(words, rendered, TERMINATION) == ["<|eom_id|>"] * 4 + ["<|eot_id|>"]
    header = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert of_part(words, rendered, FORMATTING) == [header] * 5
    assert sorted(set(rendered.messages)) == [-1, 0, 1, 2, 3, 4, 5, 6]
    assert {r for r, m in zip(rendered.roles, rendered.messages, strict=True) if m == 3} == {"tool"}


def test_golden_messages_of_one_turn(words):
    rendered = renderer(LLAMA3, words, Path()).render(CODE)
    assert of_part(words, rendered, CONTENT) == [
        "Let me run it.",
        "<|python_tag|>print(1 + 1)",
        "Two.",
    ]
    assert of_part(words, rendered, TERMINATION) == ["<|eom_id|>", "<|eom_id|>", "<|eot_id|>"]


def test_golden_chatml_and_own_protocols(words):
    rendered = renderer(CHATML, words, Path()).render(CHAT)
    assert shown(words, rendered.ids) == (
        "<|im_start|>user\nWhat is  2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\nIt is 4,\nI think. 🙂<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    assert of_part(words, rendered, FORMATTING) == [
        "<|im_start|>assistant\n",
        "\n",
        "<|im_start|>assistant\n",
        "\n",
    ]
    rendered = renderer(OWN, words, Path()).render(CODE)
    assert shown(words, rendered.ids) == (
        "<|begin_of_text|><|user|>\nCount.\n<|end|>\n<|assistant|>\nLet me run it.<|more|>"
        "<|assistant|>\nprint(1 + 1)<|more|><|ipython|>\n2\n<|end|>\n<|assistant|>\nTwo.\n<|end|>\n"
    )
    assert of_part(words, rendered, TERMINATION) == ["<|more|>", "<|more|>", "\n<|end|>"]


@pytest.mark.parametrize("settings", [LLAMA3, CHATML, OWN, PLAIN])
def test_special_tokens_inside_content_stay_text(settings, words, tmp_path):
    made = renderer(settings, words, Path())
    (tmp_path / "t.jinja").write_text(made.chat_template)
    ordinary = say("user: a", "assistant: b")
    for each in (made, renderer({"template": "t.jinja"}, words, tmp_path)):
        rendered = each.render(TRICKY)
        specials = [number for number in rendered.ids if number in each.encoder.special.values()]
        expected = each.render(ordinary).ids
        assert specials == [n for n in expected if n in each.encoder.special.values()]
        content = TRICKY[1]["content"]
        assert of_part(words, rendered, CONTENT) == [content]
        assert content in shown(words, rendered.ids)


def test_what_ends_an_answer(words):
    ids = words.token_to_id
    eos = ids(tokenizer.EOS)
    assert renderer(LLAMA3, words, Path()).stop == [ids("<|eot_id|>"), ids("<|eom_id|>"), eos]
    assert renderer(CHATML, words, Path()).stop == [ids("<|im_end|>"), eos]
    assert renderer(OWN, words, Path()).stop == [ids("<|end|>"), ids("<|more|>"), eos]


def test_an_answer_that_would_join_the_prompt_is_tokenized_by_itself(words):
    special = special_tokens(CHATML)
    joining = tokenizer.train(["a\n\n\n\nb\n\n\n" * 50], vocab=280, special=special)
    made = renderer(CHATML, joining, Path())
    prompt, answer = say("user: a"), [{"role": "assistant", "content": "\n\nb"}]
    head, (after,) = continuations(made, prompt, [answer])
    assert made.render([*prompt, *answer]).ids[: len(head)] != head.ids
    assert head.ids == made.render(prompt, prompt=True).ids
    assert shown(joining, after.ids) == "\n\nb<|im_end|>\n"
    assert of_part(joining, after, CONTENT) == ["\n\nb"]
    ordinary = [{"role": "assistant", "content": "b"}]
    head, (after,) = continuations(made, prompt, [ordinary])
    assert head.ids + after.ids == made.render([*prompt, *ordinary]).ids


def failure(made: Renderer, messages, **settings) -> str:
    with pytest.raises(DataError) as caught:
        made.render(messages, **settings)
    return caught.value.message


@pytest.mark.parametrize(
    ("settings", "messages", "reason"),
    [
        (LLAMA3, [], "no messages"),
        (LLAMA3, say("user: a"), "ends with a message of `user`"),
        (LLAMA3, say("narrator: a", "assistant: b"), "message 1 has the unknown role `narrator`"),
        (CHATML, say("ipython: a", "assistant: b"), "unknown role `ipython`"),
        (LLAMA3, say("user:  ", "assistant: b"), r"message 1 \(user\) is empty"),
        (LLAMA3, [*say("user: a"), {"role": "assistant", "content": None}], "message 2.* is empty"),
        (LLAMA3, [{"content": "a"}], "message 1 has no role"),
        (LLAMA3, ["a"], "message 1 is not an object"),
        (LLAMA3, "hello", "is not a list of messages"),
        (LLAMA3, [{"role": "user", "content": 3}], "content that is not text"),
        (LLAMA3, [{"role": "user", "content": [{"type": "image"}]}], "content that is not text"),
        (LLAMA3, [{"role": "user", "content": "\ud800"}], "lone surrogate"),
        (CHATML, CALLS[1:3], "has `tool_calls`, which the dialog's protocol cannot render"),
        (CHATML, CODE[:1] + CODE[2:3], "no end of message"),
        (LLAMA3, [*say("user: a"), {"role": "assistant", "content": "b", "to": "moon"}], "`moon`"),
        (LLAMA3, [*say("user: a"), {"role": "assistant", "tool_calls": [{}]}], "without a name"),
        (
            LLAMA3,
            [
                *say("user: a"),
                {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "["}]},
            ],
            "arguments of `f` are not a JSON object",
        ),
    ],
)
def test_dialogs_that_cannot_be_rendered(settings, messages, reason, words):
    import re

    assert re.search(reason, failure(renderer(settings, words, Path()), messages))


def test_prompts_that_cannot_be_rendered(words):
    made = renderer(CHATML, words, Path())
    assert "prompt is empty" in failure(made, [], prompt=True)
    assert "ends with a message of the assistant" in failure(made, CHAT, prompt=True)
    assert "cannot render tool definitions" in failure(made, CHAT, tools=TOOLS)


def test_texts_in_parts_and_nulls_of_tables(words):
    made = renderer(LLAMA3, words, Path())
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    odd = [
        {"role": "user", "content": parts, "tool_calls": None, "to": None},
        {"role": "assistant", "content": "c", "tool_calls": []},
    ]
    assert made.render(odd).ids == made.render(say("user: ab", "assistant: c")).ids


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"protocol": "telex"}, "no dialog protocol `telex`"),
        ({"header": "<|x|>", "end_of_turn": "<|end|>"}, "does not contain the role"),
        ({"header": "<|{role}|>", "end_of_turn": "\n\n"}, "contains no special token"),
        (OWN | {"end_of_message": "more"}, "end_of_message `more` contains no special token"),
        (OWN | {"roles": ["user"]}, "lack the assistant"),
        ({"template": "nowhere.jinja"}, "cannot be read"),
        (OWN | {"end_of_turn": "<|over|>"}, r"lacks special tokens .*<\|over\|>"),
    ],
)
def test_protocols_that_cannot_be(settings, reason, words):
    with pytest.raises(DataError, match=reason) as caught:
        renderer(settings, words, Path())
    assert caught.value.help


def test_a_tokenizer_must_have_the_protocols_tokens():
    with pytest.raises(DataError, match=r"lacks special tokens .*: <\|start_header_id\|>, "):
        renderer(LLAMA3, tokenizer.byte_level(), Path())
    bytes_ = tokenizer.byte_level(special_tokens(LLAMA3))
    assert renderer(LLAMA3, bytes_, Path()).special[0] == tokenizer.BOS


def test_special_tokens_without_a_tokenizer(tmp_path):
    assert special_tokens(CHATML) == ["<|im_start|>", "<|im_end|>"]
    assert special_tokens(OWN) == [
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|ipython|>",
        "<|end|>",
        "<|more|>",
    ]
    assert special_tokens(
        {"header": "<start_of_turn>{role}\n", "end_of_turn": "<end_of_turn>"}
    ) == ["<start_of_turn>", "<end_of_turn>"]
    (tmp_path / "t.jinja").write_text("{{ '<|a|>' + x }}<|b|>{{ '<|a|>' }}")
    assert special_tokens({"template": "t.jinja"}) == []
    assert needed_tokens({"template": "t.jinja"}, tmp_path) == ["<|a|>", "<|b|>"]
