"""What of a chat template's text is learned: the assistant's, whatever the template does."""

from typing import Any

import pytest
from test_dialog import say
from test_dialog_template import elsewhere, rendering
from transformers import PreTrainedTokenizerFast

from etude.runtime.data.dialogs.encode import CONTENT, TERMINATION
from etude.runtime.data.dialogs.rendering import continuations
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError

SPECIAL = ["<|turn|>", "<|over|>", "<|call|>", "<|result|>", "</think>", "<|tool|>", "<|last|>"]

TURN = "<|turn|>{{ m.role }}\n{{ m.content }}<|over|>\n"
PROMPT = "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
# Thoughts and calls; an answer to come begins with a thought.
OPENED = """{%- for m in messages %}
{{- '<|turn|>' + m.role + '\\n' }}
{%- if m.reasoning_content %}
{{- '<think>\\n' + m.reasoning_content + '\\n</think>\\n' }}
{%- endif %}
{{- m.content }}
{%- for c in m.tool_calls or [] %}
{{- '<call>' + (c.function | tojson) + '</call>' }}
{%- endfor %}
{{- '<|over|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|turn|>assistant\\n<think>\\n' }}{%- endif %}"""
CLOSED = OPENED.replace("assistant\\n<think>\\n", "assistant\\n")
# Thoughts are written for the last answer only.
FORGETS = OPENED.replace("if m.reasoning_content", "if m.reasoning_content and loop.last")
# Markup of special tokens inside of the answer.
MARKUP = CLOSED.replace("<call>", "<|call|>").replace("</call>", "<|tool|>")
# Calls and the last answer have ends of their own.
ENDS = """{% for m in messages %}<|turn|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}
{%- if m.tool_calls %}<|call|>{% elif loop.last and m.role == 'assistant' %}<|last|>
{%- else %}<|over|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|turn|>assistant
{% endif %}"""
# One end for the whole, and nothing but the next header after other answers.
ONE_END = """{% for m in messages %}
{{- '<|turn|>' + m.role + '\\n' + m.content + '\\n' }}{% endfor %}
{{- '<|turn|>assistant\\n' if add_generation_prompt else eos_token }}"""
# The header of an answer to come, whether it is asked for or not.
ALWAYS = "{% for m in messages %}" + TURN + "{% endfor %}{{ '<|turn|>assistant\\n' }}"
# Other white space around the header than when it is asked for.
SPACES = """{% for m in messages %}

  {{ '<|turn|>' + m.role + '\\n' + m.content + '<|over|>\\n' }}
{% endfor %}

{{ '<|turn|>assistant\\n' if add_generation_prompt }}"""
# What tools answer stands in the message that calls them, with the names of the functions.
AHEAD = """{% for m in messages %}
{%- if m.role == 'tool' %}{% continue %}{% endif %}
{%- set after = loop.index0 > 0 and messages[loop.index0 - 1].role == 'tool' %}
{{- '' if after else '<|turn|>' + m.role + '\\n' }}{{ m.content }}
{%- for c in m.tool_calls or [] %}<|call|>{{ c.function | tojson }}<|tool|>{% endfor %}
{%- if m.tool_calls %}<|result|>
{%- for t in messages[loop.index0 + 1:] %}{% if t.role != 'tool' %}{% break %}{% endif %}
{{- m.tool_calls[0].function.name + ': ' + t.content + '\\n' }}{% endfor %}
{%- else %}<|over|>{{ '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and messages[-1].role != 'tool' %}
{{- '<|turn|>assistant\\n' }}{% endif %}"""
# Two special tokens end an answer, and one more the whole dialog.
TWO = """{% for m in messages %}<|turn|>{{ m.role }}
{{ m.content }}{{ '<|tool|><|over|>' if m.role == 'assistant' else '<|over|>' }}
{% endfor %}{{ '<|turn|>assistant\\n' if add_generation_prompt else eos_token }}"""
TOLD = """{% for m in messages %}{{ '<|turn|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content }}<|over|>
{% endgeneration %}{% else %}{{ m.content + '<|over|>\\n' }}{% endif %}
{%- endfor %}{{ '<|turn|>assistant\\n' if add_generation_prompt }}"""


def call(name: str = "look", **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], content: str = "", **keys: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **keys}


def thinking(thought: str, content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "reasoning_content": thought}


ASK = say("user: U")
TALK = say("system: S", "user: U", "assistant: A one", "user: V", "assistant: A two")
CALLED = [*ASK, calling(call(town="T")), *say("tool: 9", "assistant: It is 9.")]
WRITTEN = '{"name": "look", "arguments": {"town": "T"}}'


@pytest.fixture(scope="module")
def made():
    return tokenizer.byte_level(SPECIAL)


def taught(made, rendered) -> list[str]:
    """What is learned, one text for each stretch of it."""
    found: list[list[int]] = []
    before = False
    for number, part in zip(rendered.ids, rendered.parts, strict=True):
        learned = part in (CONTENT, TERMINATION)
        if learned and not before:
            found.append([])
        if learned:
            found[-1].append(number)
        before = learned
    return [made.decode(ids, skip_special_tokens=False) for ids in found]


CASES = {
    "a call where the prompt opens a thought": (
        OPENED,
        CALLED,
        [f"<call>{WRITTEN}</call><|over|>", "It is 9.<|over|>"],
    ),
    "a call that only the first character of markup is like": (
        OPENED.replace("<call>", "<the call>"),
        CALLED[:2],
        [f"<the call>{WRITTEN}</call><|over|>"],
    ),
    "a thought that the prompt opens": (
        OPENED,
        [*ASK, thinking("T", "A")],
        ["T\n</think>\nA<|over|>"],
    ),
    "a thought by another name": (
        CLOSED,
        [*ASK, {"role": "assistant", "content": "A", "reasoning": "T"}],
        ["<think>\nT\n</think>\nA<|over|>"],
    ),
    "a thought that it does not open": (
        CLOSED,
        [*ASK, thinking("T", "A")],
        ["<think>\nT\n</think>\nA<|over|>"],
    ),
    "a thought and a call": (
        OPENED,
        [*ASK, calling(call(n=0), reasoning_content="T")],
        ['T\n</think>\n<call>{"name": "look", "arguments": {"n": 0}}</call><|over|>'],
    ),
    "thoughts of earlier turns are left out": (
        FORGETS,
        [*ASK, thinking("T", "A"), *ASK, thinking("R", "B")],
        ["A<|over|>", "R\n</think>\nB<|over|>"],
    ),
    "special tokens in the answer": (
        MARKUP,
        [
            *ASK,
            calling(call(town="T"), call("see"), content="A"),
            *say("tool: 9"),
            thinking("T", "B"),
        ],
        [
            f"A<|call|>{WRITTEN}<|tool|>"
            '<|call|>{"name": "see", "arguments": {}}<|tool|><|over|>',
            "<think>\nT\n</think>\nB<|over|>",
        ],
    ),
    "ends of calls and of the last answer": (
        ENDS,
        [*CALLED, *TALK[1:]],
        [f"{WRITTEN}<|call|>", "It is 9.<|over|>", "A one<|over|>", "A two<|last|>"],
    ),
    "the end of the whole": (ONE_END, TALK, ["A one", f"A two\n{tokenizer.EOS}"]),
    "a header that is always there": (ALWAYS, TALK, ["A one<|over|>", "A two<|over|>"]),
    "other white space": (SPACES, TALK, ["A one<|over|>", "A two<|over|>"]),
    "results in the message that calls": (
        AHEAD,
        CALLED,
        [f"<|call|>{WRITTEN}<|tool|><|result|>", "It is 9.<|over|>"],
    ),
    "two ends of an answer": (TWO, TALK, ["A one<|tool|><|over|>", "A two<|tool|><|over|>"]),
    "what the template tells": (TOLD, TALK, ["A one<|over|>\n", "A two<|over|>\n"]),
    "numbers at the end of calls": (
        OPENED,
        [*ASK, calling(call(n=[1, 2])), *say("tool: 9", "assistant: B")],
        ['<call>{"name": "look", "arguments": {"n": [1, 2]}}</call><|over|>', "B<|over|>"],
    ),
    "white space around texts": (
        CLOSED,
        say("user:  U \n", "assistant:  A \n", "user: V", "assistant: B\n"),
        [" A \n<|over|>", "B\n<|over|>"],
    ),
    "an answer like the header": (
        CLOSED,
        say("user: <think>", "assistant: <think>\n", "user: V", "assistant: user\n"),
        ["<think>\n<|over|>", "user\n<|over|>"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_exactly_what_the_assistant_writes_is_learned(case, made, tmp_path):
    template, messages, expected = CASES[case]
    rendered = rendering(made, tmp_path, template).render(messages)
    assert rendered.ids == elsewhere(made, template, messages)
    assert taught(made, rendered) == expected


@pytest.mark.parametrize("text", ["A", "A<|over|> B", "<|turn|>user\nV"])
def test_names_of_special_tokens_in_texts_move_nothing(text, made, tmp_path):
    messages = [*ASK, {"role": "assistant", "content": text}, *TALK[3:]]
    rendered = rendering(made, tmp_path, CLOSED).render(messages)
    assert taught(made, rendered) == [f"{text}<|over|>", "A two<|over|>"]
    assert rendered.ids.count(made.token_to_id("<|over|>")) == 4


def test_generation_blocks_are_those_of_transformers(made, tmp_path):
    other: Any = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=tokenizer.BOS, eos_token=tokenizer.EOS
    )
    there = other.apply_chat_template(
        TALK, chat_template=TOLD, return_dict=True, return_assistant_tokens_mask=True
    )
    rendered = rendering(made, tmp_path, TOLD).render(TALK)
    assert rendered.ids == there["input_ids"]
    mask = [int(part in (CONTENT, TERMINATION)) for part in rendered.parts]
    assert mask == there["assistant_masks"]


def test_a_generation_block_decides_about_the_end(made, tmp_path):
    template = TOLD.replace("<|over|>\n{% endgeneration %}", "{% endgeneration %}<|over|>\n")
    each = rendering(made, tmp_path, template)
    assert taught(made, each.render(TALK)) == ["A one", "A two"]
    assert each.stop == [made.token_to_id("<|over|>"), made.token_to_id(tokenizer.EOS)]


def test_a_generation_block_opens_a_scope_as_in_transformers(made, tmp_path):
    inside = TOLD.replace("{{ m.content }}", "{{ m.content }}{% set x = 'b' %}")
    template = "{% set x = 'a' %}" + inside + "{{ x }}"
    rendered = rendering(made, tmp_path, template).render(TALK)
    assert rendered.ids == elsewhere(made, template, TALK)


def test_a_generation_block_around_the_users_text_is_refused(made, tmp_path):
    template = "{% for m in messages %}{% generation %}" + TURN + "{% endgeneration %}{% endfor %}"
    with pytest.raises(DataError, match="where it ends and another message begins"):
        rendering(made, tmp_path, template + PROMPT).render(TALK)


UNWRITTEN = {
    "calls": (ALWAYS, CALLED, None, r"message 2 \(assistant\): .*`tool_calls`"),
    "thoughts": (ALWAYS, [*ASK, thinking("T", "A")], None, "message 2 .*`reasoning_content`"),
    "tools": (ALWAYS, TALK, [{"name": "f", "parameters": {}}], "tool definitions"),
    "a role": (
        CLOSED.replace("in messages", "in messages if m.role != 'system'"),
        TALK,
        None,
        r"message 1 \(system\): .*`content`",
    ),
    "text beside calls": (
        CLOSED.replace("{{- m.content }}", "{{- '' if m.tool_calls else m.content }}"),
        [*ASK, calling(call(n=0), content="Well")],
        None,
        "message 2 .*`content`",
    ),
    "the second call": (
        CLOSED.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"),
        [*ASK, calling(call(n=0), call("see", n=1))],
        None,
        "name of call 2",
    ),
    "arguments": (
        CLOSED.replace("c.function | tojson", "c.function.name"),
        [*ASK, calling(call(n=0))],
        None,
        "arguments of call 1",
    ),
    "thoughts in the text": (
        CLOSED.replace("m.content }}", "m.content.split('</think>')[-1] }}"),
        say("user: U", "assistant: <think>I say</think>A", "user: V", "assistant: B"),
        None,
        "leaves “I say” out of its `content`",
    ),
    "another key": (
        ALWAYS,
        [*ASK, {"role": "assistant", "content": "A", "refusal": "No"}],
        None,
        "message 2 .*`refusal`",
    ),
}


@pytest.mark.parametrize("case", UNWRITTEN)
def test_what_a_template_never_writes_is_refused(case, tmp_path):
    template, messages, tools, reason = UNWRITTEN[case]
    plain = tokenizer.byte_level([s for s in SPECIAL if s != "</think>"])
    with pytest.raises(DataError, match=reason):
        rendering(plain, tmp_path, template).render(messages, tools=tools)


def test_metadata_need_not_be_written(made, tmp_path):
    messages = [*ASK, {"role": "assistant", "content": "A", "id": "x", "model": "m"}]
    assert taught(made, rendering(made, tmp_path, CLOSED).render(messages)) == ["A<|over|>"]


def test_an_answer_that_is_empty_once_it_is_rendered_is_refused(made, tmp_path):
    messages = [*ASK, thinking("T", ""), *ASK, thinking("R", "B")]
    with pytest.raises(DataError, match=r"message 2 \(assistant\) is rendered as empty"):
        rendering(made, tmp_path, FORGETS).render(messages)


def test_a_template_without_ends_of_turns_is_refused(made, tmp_path):
    with pytest.raises(
        DataError, match="does not end the assistant's message with a special token"
    ):
        rendering(made, tmp_path, ALWAYS.replace("<|over|>", ""))


PAIRS = {
    "both think": (OPENED, [thinking("T", "A")], [thinking("R", "B")], "assistant\n<think>\n"),
    "one thinks": (OPENED, [thinking("T", "A")], say("assistant: B"), "assistant\n"),
    "neither thinks": (OPENED, say("assistant: A"), say("assistant: B"), "assistant\n"),
    "a call": (OPENED, [calling(call(n=0))], say("assistant: B"), "assistant\n"),
    "other white space": (SPACES, say("assistant: A"), say("assistant: B"), "assistant\n"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_answers_of_a_preference_follow_on_the_prompt_of_inference(case, made, tmp_path):
    template, one, other, end = PAIRS[case]
    each = rendering(made, tmp_path, template)
    head, answers = continuations(each, TALK[1:4], [one, other])
    asked = each.render(TALK[1:4], prompt=True).ids
    assert asked[: len(head)] == head.ids
    assert made.decode(head.ids, skip_special_tokens=False).endswith(end)
    for answer, message in zip(answers, (one, other), strict=True):
        text = made.decode(answer.ids, skip_special_tokens=False)
        if template is OPENED:
            whole = each.render([*TALK[1:4], *message])
            assert head.ids + answer.ids == whole.ids
        else:
            assert text == f"{message[0]['content']}<|over|>\n\n\n"


def test_prompts_that_an_answer_changes_stay_as_they_are_for_a_model(made, tmp_path):
    """A second answer makes this template leave out the thought of the first one."""
    prompt = [*ASK, thinking("T", "A"), *say("tool: 9")]
    count = "{%- set n = messages | selectattr('role', 'eq', 'assistant') | list | length %}"
    rare = CLOSED.replace("if m.reasoning_content", "if m.reasoning_content and n < 2")
    each = rendering(made, tmp_path, count + rare)
    head, answers = continuations(each, prompt, [say("assistant: B"), say("assistant: C")])
    assert head.ids == each.render(prompt, prompt=True).ids
    assert "T\n</think>" in made.decode(head.ids, skip_special_tokens=False)
    texts = [made.decode(answer.ids, skip_special_tokens=False) for answer in answers]
    assert texts == ["B<|over|>\n", "C<|over|>\n"]


def test_the_day_is_always_the_same(made, tmp_path):
    template = "{{ strftime_now('%d %b %Y') }}\n" + CLOSED
    text = made.decode(rendering(made, tmp_path, template).render(TALK).ids)
    assert text.startswith("01 Jan 2025")


@pytest.mark.parametrize(
    "line",
    [
        "{{ {'é': '<&>'} | tojson(indent=2, sort_keys=true) }}",
        "{{ dict(a=1).a }}{{ dict.fromkeys([1]) }}",
        "{% set n = namespace(a=1, self=2) %}{{ n.a }}{{ n.self }}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}",
        "   {% if true %}\n   x\n   {% endif %}\n",
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}",
        "{% for k, v in messages[0].items() %}{{ k }}{{ v.upper() }}{% endfor %}",
        "{% set d = {'items': 1, 'x': none} %}{{ d.items is callable }}{{ d.x }}{{ d.y is none }}",
        "{{ messages[0].content.nothing is defined }}{{ 'x{}{a}'.format(1, a=2) }}",
        "{{ '{a}'.format_map({'a': 'é'}) }}{{ messages[0] | attr('role') }}",
    ],
)
def test_templates_get_what_transformers_gives(line, made, tmp_path):
    template = line + CLOSED
    rendered = rendering(made, tmp_path, template).render(TALK)
    assert rendered.ids == elsewhere(made, template, TALK)


@pytest.mark.parametrize(
    "unsafe",
    [
        "''.__class__.x",
        "messages[0].__class__.x",
        "messages[0]['__class__'].x",
        "messages.append(1)",
        "messages[0].clear()",
        "messages[0].update(a=1)",
        "'{0.__class__.x}'.format(1)",
        "'{a.__class__.x}'.format_map({'a': 1})",
        "raise_exception.__globals__.x",
    ],
)
def test_templates_reach_nothing_unsafe(unsafe, made, tmp_path):
    """Twice, since what is safe is decided once; and after the same name of something else."""
    names = "{% set n = namespace(append=1, clear=2, update=3) %}"
    template = names + "{% set x = [n.append, n.clear, n.update] %}" + CLOSED
    each = rendering(made, tmp_path, template + f"{{{{ {unsafe} if messages | length > 2 }}}}")
    for _ in range(2):
        with pytest.raises(DataError, match=r"unsafe|not safely callable"):
            each.render(TALK)


def test_namespaces_hold_no_hidden_names(made, tmp_path):
    with pytest.raises(DataError, match="`_a`"):
        rendering(made, tmp_path, "{% set n = namespace(_a=1) %}" + CLOSED)


def test_the_case_of_calls_that_a_template_ignores(tmp_path):
    """ChatML without tool calls: half of each dialog would be lost."""
    plain = tokenizer.byte_level(["<|im_start|>", "<|im_end|>"])
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + "
        "'\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    with pytest.raises(DataError) as caught:
        rendering(plain, tmp_path, template).render(CALLED)
    assert caught.value.message == (
        "message 2 (assistant): the chat template does not render its `tool_calls` (the name of "
        "call 1)"
    )
    assert 'fields = { ignore = "tool_calls" }' in caught.value.help
