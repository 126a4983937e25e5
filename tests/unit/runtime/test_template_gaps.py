"""Finding all answers from one rendering gives what replacing them one by one gives."""

import random
from typing import Any

import pytest
import test_dialog_template
import test_template_parts
from test_dialog import say
from test_dialog_template import rendering
from test_template_parts import ASK, CALLED, CLOSED, PROMPT, SPECIAL, TALK, TURN, call, calling

from etude.runtime.data.dialogs import dialog_template
from etude.runtime.data.dialogs.chat_template import Template
from etude.runtime.data.dialogs.encode import CONTENT
from etude.runtime.data.dialogs.template_gaps import gaps
from etude.runtime.data.dialogs.template_marks import marked
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError

TEMPLATES = {
    f"{module.__name__}.{name}": text
    for module in (test_template_parts, test_dialog_template)
    for name, text in vars(module).items()
    if name.isupper() and isinstance(text, str) and "for m in" in text
}
MORE = ["<start>", "<end>", "[INST]", "[/INST]"]
WORDS = [
    "yes",
    "indeed",
    "9",
    "assistant",
    "user",
    "é🙂",
    "a\nb",
    "<think>",
    "</think>",
    "<|over|>",
]
DIALOGS = 30


@pytest.fixture(scope="module")
def made():
    return tokenizer.byte_level([*SPECIAL, *MORE])


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, [9, 9, 3, 1, 1, 3, 2, 1, 1, 1], k=rng.randint(1, 4)))


def dialog(rng: random.Random) -> list[dict[str, Any]]:
    """Some turns with thoughts, calls of tools, and texts that look like markup."""
    made = say("system: S") if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 4)):
        made.append({"role": "user", "content": text(rng)})
        if rng.random() < 0.3:
            value = rng.choice([1, [1, 2], text(rng)])
            said = rng.choice(["", text(rng)])
            made += [calling(call(x=value), call("see"), content=said), *say("tool: 9", "tool: 8")]
        made.append({"role": "assistant", "content": text(rng)})
        if rng.random() < 0.3:
            made[-1]["reasoning_content"] = text(rng)
    return made


def rendered(each: Any, messages: list[dict[str, Any]]) -> Any:
    """The tokens with all that is known about them, or why there are none."""
    try:
        return vars(each.render(messages))
    except DataError as problem:
        return problem.message


@pytest.mark.parametrize("name", TEMPLATES)
def test_random_dialogs_are_the_same_tokens_with_the_same_parts(
    name: str, made: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(name)
    each: Any = rendering(made, tmp_path, TEMPLATES[name])
    dialogs = [dialog(rng) for _ in range(DIALOGS)]
    at_once = [rendered(each, messages) for messages in dialogs]
    monkeypatch.setattr(dialog_template, "gaps", lambda *given: {})
    monkeypatch.setattr(each._template, "_borders", False)
    assert [rendered(each, messages) for messages in dialogs] == at_once


def test_the_templates_of_the_tests_are_compared() -> None:
    assert len(TEMPLATES) > 10


@pytest.mark.parametrize("messages", [TALK, CALLED])
def test_two_renderings_for_each_answer_and_three_for_the_dialog(
    messages: list[dict[str, Any]], made: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = rendering(made, tmp_path, CLOSED)
    each.render(messages)  # finds out which roles the template knows
    count = 0
    render = Template.render

    def counted(*given: Any, **settings: Any) -> str:
        nonlocal count
        count += 1
        return render(*given, **settings)

    monkeypatch.setattr(Template, "render", counted)
    each.render(messages)
    assert count == 3 + 2 * sum(message["role"] == "assistant" for message in messages)


def found(template: str, messages: list[dict[str, Any]]) -> Any:
    compiled = Template(template, {"eos_token": tokenizer.EOS})
    shown = compiled.render(messages, None)
    known = marked(compiled, messages, None, shown, False)
    spans = gaps(compiled, messages, None, shown, known)
    return {number: shown[begin:end] for number, (begin, end) in spans.items()}


LOOP = "{% for m in messages %}" + TURN + "{% endfor %}" + PROMPT


def test_answers_are_what_is_between_the_gaps() -> None:
    assert found(LOOP, TALK) == {2: "A one", 4: "A two"}


LIKE = "A<|over|>\n<|turn|>user\nV<|over|>\n<|turn|>assistant\nB"
"""An answer that has in it what is between two answers."""
UNSHOWN = {
    "one answer": (LOOP, [*ASK, *say("assistant: A")]),
    "written twice": (LOOP + "{{ messages[1].content }}", TALK[1:]),
    "its length": (LOOP.replace("m.content }}", "m.content }}{{ m.content | length }}"), TALK),
    "its beginning": (LOOP.replace("m.role }}", "(loop.previtem or m).content[:1] }}"), TALK),
    "a text like the gap": (LOOP, say("user: U", f"assistant: {LIKE}", "user: V", "assistant: C")),
    "nothing between": (
        LOOP.replace("<|over|>\n", "").replace("<|turn|>{{ m.role }}\n", ""),
        say("user: U", "assistant: A", "assistant: B"),
    ),
    "others refused": (
        "{{ raise_exception('no') if messages[2].content != 'A one' }}" + LOOP,
        TALK,
    ),
}


@pytest.mark.parametrize("case", UNSHOWN)
def test_nothing_is_said_where_one_rendering_does_not_show_it(case: str) -> None:
    assert found(*UNSHOWN[case]) == {}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (LOOP, True),
        (LOOP + "\n{{ 1 }}", False),
        (LOOP.replace("{% endif %}", "{% else %}.{% endif %}"), False),
        ("{% set add_generation_prompt = true %}" + LOOP, False),
        ("{% if add_generation_prompt %}x{% endif %}" + LOOP, False),
    ],
)
def test_a_prompt_is_a_dialog_with_a_header_where_only_the_end_asks_for_it(
    template: str, shown: bool
) -> None:
    compiled = Template(template, {})
    prompt, border = compiled.asked(TALK[:2], None, "\ue000")
    assert prompt == compiled.render(TALK[:2], None, prompt=True)
    assert (border is not None) is shown
    if border is not None:
        assert prompt[:border] == compiled.render(TALK[:2], None)


def test_a_mark_that_the_text_has_already_shows_no_border() -> None:
    compiled = Template("\ue000" + LOOP, {})
    prompt = compiled.render(TALK[:2], None, prompt=True)
    assert compiled.asked(TALK[:2], None, "\ue000") == (prompt, None)


def test_the_parts_of_a_long_dialog(made: Any, tmp_path: Any) -> None:
    messages = [each for n in range(20) for each in say(f"user: U {n}", f"assistant: A {n}")]
    shown = rendering(made, tmp_path, LOOP).render(messages)
    said = [i for i, part in zip(shown.ids, shown.parts, strict=True) if part == CONTENT]
    assert made.decode(said) == "".join(f"A {n}" for n in range(20))
