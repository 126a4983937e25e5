"""Chat templates as models have them: what is the assistant's is found in each."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_dialog import say
from transformers import PreTrainedTokenizerFast

from etude.runtime.data.dialogs.dialog import read_template, renderer
from etude.runtime.data.dialogs.encode import CONTENT, FORMATTING, TERMINATION
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError

# The system prompt is part of the first user message; other orders are refused.
FOLDED = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first = messages[0]['content'] + '\\n\\n' -%}{%- set rest = messages[1:] -%}
{%- else -%}
    {%- set first = '' -%}{%- set rest = messages -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate") }}
    {%- endif -%}
    {{ '<start>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}
    {{- (first if loop.first else '') + m['content'] | trim + '<end>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start>model\\n' }}{%- endif -%}
"""
# No header for the answer, and none that `add_generation_prompt` would add.
BRACKETS = """{{ bos_token }}{% for m in messages %}
{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}
{%- else %}{{ ' ' + m.content.strip() + eos_token }}{% endif %}
{% endfor %}"""
# Thoughts are kept in the last answer only, and an answer to come begins with them.
THINKING = """{%- set ns = namespace(last=messages|length - 1) %}
{%- for m in messages %}
{%- set content = m.content %}
{%- if m.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<start>' + m.role + '\\n' }}
{{- content + '<end>' }}
{{- '\\n' }}
{%- if loop.index > 99 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start>assistant\\n<think>\\n' }}{%- endif %}"""
CALLING = """{% for m in messages %}<start>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}
<call>{{ c.function | tojson }}</call>{% endfor %}<end>
{% endfor %}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{%- if add_generation_prompt %}<start>assistant
{% endif %}"""

CHAT = say(
    "system: S.",
    "user: U one <end> x",
    "assistant: A one",
    "user: U two",
    "assistant: model <start> two",
)
THOUGHT = say(
    "user: U",
    "assistant: <think>\none</think>\n\nA one",
    "user: V",
    "assistant: <think>\ntwo</think>\n\nA two",
)


@pytest.fixture(scope="module")
def made():
    return tokenizer.byte_level(["<start>", "<end>", "[INST]", "[/INST]"])


def rendering(made, folder: Path, template: str, **settings):
    (folder / "t.jinja").write_text(template)
    return renderer({"template": "t.jinja"} | settings, made, folder)


def elsewhere(made, template: str, messages, **settings) -> list[int]:
    other: Any = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=tokenizer.BOS, eos_token=tokenizer.EOS
    )
    return other.apply_chat_template(
        messages, chat_template=template, return_dict=False, **settings
    )


def texts(made, rendered, part: int, message: int) -> str:
    places = zip(rendered.ids, rendered.parts, rendered.messages, strict=True)
    ids = [i for i, p, m in places if (p, m) == (part, message)]
    return made.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("template", [FOLDED, THINKING, CALLING, BRACKETS])
@pytest.mark.parametrize("prompt", [False, True])
def test_the_tokens_are_those_of_transformers(template, prompt, made, tmp_path):
    messages = say("user: U  é", "assistant: A\n🙂", "user: V", "assistant: B")
    messages = messages[: 4 - prompt]
    rendered = rendering(made, tmp_path, template).render(messages, prompt=prompt)
    assert rendered.ids == elsewhere(made, template, messages, add_generation_prompt=prompt)


def test_a_system_prompt_that_is_part_of_a_message(made, tmp_path):
    rendered = rendering(made, tmp_path, FOLDED).render(CHAT)
    assert texts(made, rendered, CONTENT, 2) == "A one"
    assert texts(made, rendered, FORMATTING, 2) == "<start>model\n\n"
    assert texts(made, rendered, CONTENT, 4) == "model <start> two"
    assert texts(made, rendered, TERMINATION, 4) == "<end>"
    start = made.token_to_id("<start>")
    assert rendered.ids.count(start) == 4


def test_answers_without_a_header(made, tmp_path):
    each = rendering(made, tmp_path, BRACKETS)
    rendered = each.render(say("user: U", "assistant: A one"))
    # The prompt ends before the space, so that it is the model that writes it.
    assert texts(made, rendered, CONTENT, 1) == " A one"
    assert texts(made, rendered, TERMINATION, 1) == tokenizer.EOS
    assert each.stop == [made.token_to_id(tokenizer.EOS)]


def test_answers_that_begin_with_what_the_prompt_ends_with(made, tmp_path):
    rendered = rendering(made, tmp_path, THINKING).render(THOUGHT)
    assert texts(made, rendered, CONTENT, 1) == "A one"
    assert texts(made, rendered, FORMATTING, 1) == "<start>assistant\n\n"
    assert texts(made, rendered, CONTENT, 3) == "two</think>\n\nA two"
    assert texts(made, rendered, TERMINATION, 3) == "<end>"


def test_tool_calls_are_content(made, tmp_path):
    call = {"function": {"name": "f", "arguments": {"x": "<end>"}}}
    messages = [*say("user: U"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    each = rendering(made, tmp_path, CALLING)
    rendered = each.render(messages)
    written = '<call>{"name": "f", "arguments": {"x": "<end>"}}</call>'
    assert texts(made, rendered, CONTENT, 1) == written
    assert rendered.ids.count(made.token_to_id("<end>")) == 2
    tools = [{"name": "f", "d": "é"}]
    assert each.render(say("user: U", "assistant: A"), tools=tools).ids == elsewhere(
        made, CALLING, say("user: U", "assistant: A"), tools=tools
    )


def test_the_default_system_prompt(made, tmp_path):
    each = rendering(made, tmp_path, FOLDED, system="Be {{ brief }} %}.")
    assert "Be {{ brief }} %}." in made.decode(each.render(CHAT[1:3]).ids)
    plain = say("user: U", "assistant: A")
    assert each.render(plain).ids == elsewhere(made, each.chat_template, plain)
    assert "S." in made.decode(each.render(CHAT[:3]).ids)
    assert "Be" not in made.decode(each.render(CHAT[:3]).ids)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "broken in line 1"),
        ("{{ messages.append(1) }}", "rejects the dialog: .*unsafe"),
        ("{{ raise_exception('no') }}", "rejects the dialog: no"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "does not end the assistant's message with",
        ),
        ("{{ messages[0].nothing.at_all }}", "rejects the dialog"),
        ("{{ 1 / 0 }}", "rejects the dialog: division by zero"),
    ],
)
def test_templates_that_cannot_be(template, reason, made, tmp_path):
    with pytest.raises(DataError, match=reason):
        rendering(made, tmp_path, template)


def test_what_a_template_refuses_is_an_error(made, tmp_path):
    with pytest.raises(DataError, match="rejects the dialog: Roles must alternate"):
        rendering(made, tmp_path, FOLDED).render(say("user: a", "user: b", "assistant: c"))


def test_special_tokens_that_a_template_hides(made, tmp_path):
    """Where the template cuts into a text, it cannot be told whose a special token is."""
    lengths = FOLDED.replace("+ '<end>", "+ (m['content'] | length | string) + '<end>")
    each = rendering(made, tmp_path, lengths)
    rendered = each.render(say("user: a", "assistant: b"))
    assert texts(made, rendered, CONTENT, 1) == "b"
    assert texts(made, rendered, TERMINATION, 1) == "1<end>"
    with pytest.raises(DataError, match="does not show where"):
        each.render(say("user: a <end>", "assistant: b"))
    thought = [*THOUGHT]
    thought[1] = {"role": "assistant", "content": "<think>x</think>A <end> one"}
    with pytest.raises(DataError, match="does not show where"):
        rendering(made, tmp_path, THINKING).render(thought)


def test_a_template_may_be_in_the_settings_of_a_tokenizer(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_config.json"
    settings = {"template": file.name}
    for given in (
        FOLDED,
        [{"name": "tools", "template": CALLING}, {"name": "default", "template": FOLDED}],
    ):
        file.write_text(json.dumps({"chat_template": given}))
        assert read_template(settings, tmp_path) == FOLDED
    for text, what in (
        (json.dumps({"eos_token": "x"}), "has no `chat_template`"),
        (json.dumps({"chat_template": [{"name": "tools", "template": "x"}]}), "called `default`"),
        ("[", "has no `chat_template`"),
    ):
        file.write_text(text)
        with pytest.raises(DataError) as found:
            read_template(settings, tmp_path)
        assert what in found.value.message
