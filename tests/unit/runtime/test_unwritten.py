"""What a record says is learned or named: nothing of it is lost without a word."""

import json

import pytest
from preparing import CHATML, LLAMA3, job, lines, make, tokenized
from test_dialog import say

from etude.runtime.data.dialogs.encode import CONTENT, EXCLUDED, OTHER, TERMINATION
from etude.runtime.data.order.packing import learned, pack_dialogs
from etude.runtime.data.records.shards import Records
from etude.runtime.errors import DataError

OWN = {"header": "<|start_header_id|>{role}<|end_header_id|>", "end_of_turn": "<|eot_id|>"}
ASK = say("user: q")
ANSWER = say("assistant: yes")


@pytest.fixture
def inputs(tmp_path):
    return tokenized(tmp_path)


def made(inputs, root, *rows, form="dialogs", fields=None, **settings):
    lines(root / "d.jsonl", *rows)
    source = {"kind": "files", "files": ["d.jsonl"], "fields": fields}
    result, events = make(job(form, source=source, **settings), inputs, root)
    records = Records(result, "train")
    return [records.record(i) for i in range(records.count)], events


def bad(inputs, root, row, **settings) -> DataError:
    with pytest.raises(DataError) as error:
        made(inputs, root, row, **settings)
    assert error.value.message.startswith("d.jsonl:1: ")
    return error.value


def text(record) -> str:
    return bytes(t for t in record.tokens.tolist() if t < 256).decode()


def taught(record) -> str:
    """The text that is learned, with | for special tokens."""
    mask = learned(record.parts, every_token=False)
    return "".join(chr(t) if t < 256 else "|" for t in record.tokens[mask].tolist())


@pytest.mark.parametrize("dialog", [LLAMA3, CHATML, OWN])
@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "refusal", "prefix"])
@pytest.mark.parametrize("content", ["", "yes"])
def test_what_a_protocol_cannot_write_is_a_bad_line(dialog, key, content, inputs, tmp_path):
    row = {"messages": [*ASK, {"role": "assistant", "content": content, key: "I think."}]}
    error = bad(inputs, tmp_path, row, dialog=dialog)
    if content or key not in ("refusal", "prefix"):
        assert f"message 2 (assistant) has `{key}`" in error.message
        assert f'fields = {{ ignore = "{key}" }}' in error.help
    else:
        reason = f"message 2 (assistant) has no `content`, only `{key}`, which is not an answer"
        assert reason in error.message


@pytest.mark.parametrize("dialog", [CHATML, OWN])
@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
def test_calls_that_a_protocol_cannot_write_are_bad_lines(dialog, key, inputs, tmp_path):
    call = {"name": "f", "arguments": "{}"}
    called = {"role": "assistant", "content": "", key: [call] if key == "tool_calls" else call}
    error = bad(inputs, tmp_path, {"messages": [*ASK, called]}, dialog=dialog)
    assert "message 2 (assistant) has `tool_calls`, which the dialog's protocol" in error.message


TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% if m.mood %}{{ '(' + m.mood + ')' }}{% endif %}{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("key", "value"),
    [("refusal", "No."), ("images", ["a"]), ("to", "ipython"), ("reasoning", "Hm.")],
)
def test_what_a_template_does_not_write_is_a_bad_line(key, value, inputs, tmp_path):
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    dialog = {"template": "chat.jinja"}
    error = bad(inputs, tmp_path, {"messages": [*ASK, ANSWER[0] | {key: value}]}, dialog=dialog)
    assert "message 2 (assistant)" in error.message
    assert "the chat template does not render" in error.message
    assert key in error.message
    written = {"messages": [*ASK, ANSWER[0] | {"mood": "gaily", "to": "user", "id": 7}]}
    (found,), _ = made(inputs, tmp_path, written, dialog=dialog)
    assert "yes(gaily)" in text(found)


def test_calls_of_others_than_the_assistant_are_bad_lines(inputs, tmp_path):
    asked = ASK[0] | {"tool_calls": [{"function": {"name": "f"}}]}
    error = bad(inputs, tmp_path, {"messages": [asked, *ANSWER]})
    assert "message 1 (user) has `tool_calls`" in error.message


def test_what_is_ignored_on_purpose_is_left_out(inputs, tmp_path):
    row = {"messages": [*ASK, ANSWER[0] | {"thinking": "Hm.", "mood": "good"}]}
    fields = {"ignore": ["thinking", "mood"]}
    (found,), _ = made(inputs, tmp_path, row, fields=fields)
    (plain,), _ = made(inputs, tmp_path, {"messages": ASK + ANSWER})
    assert found.tokens.tolist() == plain.tokens.tolist()
    assert "`mood`" in bad(inputs, tmp_path, row, fields={"ignore": ["thinking"]}).message


def test_metadata_and_keys_without_a_value_are_no_text(inputs, tmp_path):
    more = {
        "id": "x7",
        "timestamp": 5,
        "model": "m",
        "language": "en",
        "refusal": None,
        "thinking": "",
        "annotations": [],
        "images": [],
        "prefix": False,
    }
    (found,), _ = made(inputs, tmp_path, {"messages": [ASK[0] | more, ANSWER[0] | more]})
    (plain,), _ = made(inputs, tmp_path, {"messages": ASK + ANSWER})
    assert found.tokens.tolist() == plain.tokens.tolist()


def test_names_matter_where_they_tell_speakers_apart(inputs, tmp_path):
    ann, bob = ({"role": "user", "content": "q", "name": name} for name in ("ann", "bob"))
    made(inputs, tmp_path, {"messages": [ann, *ANSWER, ann, *ANSWER]})
    error = bad(inputs, tmp_path, {"messages": [ann, *ANSWER, bob, *ANSWER]})
    assert "message 3 (user) is by `bob`, another one before it by `ann`" in error.message


def test_the_older_form_of_calls_gives_the_same_tokens(inputs, tmp_path):
    call = {"name": "f", "arguments": '{"a": 1}'}
    function = {"name": "f", "parameters": {"type": "object"}}
    old = {
        "messages": [
            *ASK,
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "f", "content": "2"},
            *ANSWER,
        ],
        "functions": [function],
    }
    new = {
        "messages": [
            *ASK,
            {"role": "assistant", "tool_calls": [{"function": call}]},
            {"role": "tool", "content": "2"},
            *ANSWER,
        ],
        "tools": [{"type": "function", "function": function}],
    }
    (one, other), _ = made(inputs, tmp_path, old, new)
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.parts.tolist() == other.parts.tolist()
    assert '{"name": "f", "parameters": {"a": 1}}' in taught(one)
    both = old["messages"][1] | {"tool_calls": [{"function": call}]}
    assert (
        "has both `function_call` and `tool_calls`"
        in bad(inputs, tmp_path, {"messages": [*ASK, both]}).message
    )


def test_a_call_whose_arguments_are_called_otherwise_is_a_bad_line(inputs, tmp_path):
    call = {"name": "f", "parameters": {"a": 1}}
    row = {"messages": [*ASK, {"role": "assistant", "tool_calls": [call]}]}
    assert "the call of `f` has `parameters`, but no `arguments`" in (
        bad(inputs, tmp_path, row).message
    )


@pytest.mark.parametrize(
    "off", [{"weight": 0}, {"train": False}, {"training": False}, {"weight": 0.0, "train": False}]
)
@pytest.mark.parametrize("dialog", [LLAMA3, CHATML])
def test_messages_that_are_not_learned_are_context(off, dialog, inputs, tmp_path):
    skipped = say("assistant: one")[0] | off
    rows = [
        {"messages": [*ASK, skipped, *ASK, *say("assistant: two")]},
        {"messages": [*ASK, *say("assistant: one"), *ASK, *say("assistant: two")]},
    ]
    (found, whole), _ = made(inputs, tmp_path, *rows, dialog=dialog)
    assert found.tokens.tolist() == whole.tokens.tolist()
    assert taught(whole) == "one|two|"
    assert taught(found) == "two|"
    # Whoever learns every token does not learn these either.
    _, labels, _ = pack_dialogs([found], len(found.tokens), every_token=True)
    assert (labels[:-1] == -100).sum() == (found.parts == EXCLUDED).sum() > 5
    assert set(found.parts.tolist()) >= {OTHER, CONTENT, TERMINATION, EXCLUDED}


def test_weights_of_one_change_nothing(inputs, tmp_path):
    rows = [
        {"messages": [*ASK, ANSWER[0] | {"weight": 1, "train": True}]},
        {"messages": [ASK[0] | {"weight": 1}, *ANSWER]},
    ]
    (one, other), _ = made(inputs, tmp_path, *rows)
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.parts.tolist() == other.parts.tolist()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ANSWER[0] | {"weight": 0.5}, "message 2 (assistant) has `weight` 0.5"),
        (ANSWER[0] | {"weight": 0, "train": True}, "`weight` and `train` contradict each other"),
        (ANSWER[0] | {"weight": 0}, "the dialog has nothing to learn"),
    ],
)
def test_weights_that_cannot_be_honoured(message, reason, inputs, tmp_path):
    assert reason in bad(inputs, tmp_path, {"messages": [*ASK, message]}).message


def test_the_user_is_not_learned(inputs, tmp_path):
    row = {"messages": [ASK[0] | {"train": True}, *ANSWER]}
    assert "only the assistant's messages are learned" in bad(inputs, tmp_path, row).message


def test_preferences_compare_whole_responses(inputs, tmp_path):
    off = say("assistant: no")[0] | {"weight": 0}
    row = {"prompt": ASK, "chosen": ANSWER, "rejected": [off]}
    error = bad(inputs, tmp_path, row, form="preferences")
    assert "a message of `rejected` is marked as not learned" in error.message
    # In the prompt, nothing is learned anyway.
    before = [*ASK, off, *ASK]
    row = {"prompt": before, "chosen": ANSWER, "rejected": say("assistant: no")}
    (found,), _ = made(inputs, tmp_path, row, form="preferences")
    assert set(found.parts[: found.branches[0]].tolist()) == {OTHER}


@pytest.mark.parametrize("rank", ["rejected", "edited"])
def test_responses_that_are_equal_once_they_are_rendered_are_a_bad_line(rank, inputs, tmp_path):
    row = {"prompt": ASK, "chosen": say("assistant: yes"), rank: say("assistant: yes ")}
    error = bad(inputs, tmp_path, row, form="preferences")
    assert "are equal once they are rendered, so they have no order" in error.message
    assert "`chosen`" in error.message
    assert f"`{rank}`" in error.message
    # What the protocol writes differently is different.
    (found,), _ = made(inputs, tmp_path, row, form="preferences", dialog=CHATML)
    assert found.branches[1] != found.branches[2]


def test_of_drawn_pairs_equal_ones_are_left_out_and_named(inputs, tmp_path):
    rows = [
        {"prompt": ASK, "chosen": ANSWER, "rejected": say(f"assistant: {no}")}
        for no in ("no", "yes ")
    ]
    (tmp_path / "drawn").mkdir()
    lines(tmp_path / "drawn" / "pairs.jsonl", *rows)
    source = {"kind": "job", "file": "pairs.jsonl"}
    roles = inputs | {"from.0": tmp_path / "drawn"}
    result, events = make(job("preferences", source=source), roles, tmp_path)
    assert Records(result, "train").count == 1
    assert "equal once they are rendered" in events[0]["message"]


def test_a_prompt_that_the_responses_do_not_begin_with_is_a_bad_line(inputs, tmp_path):
    whole = {"chosen": ASK + ANSWER, "rejected": ASK + say("assistant: no")}
    system = say("system: s")
    for prompt in ("q", " q\n", ASK, None):
        (found,), _ = made(inputs, tmp_path, whole | {"prompt": prompt}, form="preferences")
        assert text(found).endswith("assistant\n\nyesassistant\n\nno".replace("assistant\n\n", ""))
    longer = {name: [*system, *messages] for name, messages in whole.items()}
    made(inputs, tmp_path, longer | {"prompt": ASK}, form="preferences")
    for prompt in ("another", say("user: another"), system + ASK):
        error = bad(inputs, tmp_path, whole | {"prompt": prompt}, form="preferences")
        assert "`prompt` differs from the prompt with which the responses" in error.message


SHARED = {"role": "from", "content": "value"}


def test_sharegpt_gives_the_same_tokens(inputs, tmp_path):
    said = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "yes", "weight": 1},
    ]
    fields = {"messages": "conversations", **SHARED}
    (found,), _ = made(inputs, tmp_path, {"conversations": said}, fields=fields)
    (plain,), _ = made(inputs, tmp_path, {"messages": say("system: s") + ASK + ANSWER})
    assert found.tokens.tolist() == plain.tokens.tolist()
    assert found.parts.tolist() == plain.parts.tolist()
    pair = {"conversations": said[:2], "chosen": said[2], "rejected": {"from": "gpt", "value": "n"}}
    fields = {"prompt": "conversations", **SHARED}
    (found,), _ = made(inputs, tmp_path, pair, fields=fields, form="preferences")
    assert len(found.branches) == 3


def test_the_message_proposes_fields_that_work(inputs, tmp_path):
    said = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]
    error = bad(inputs, tmp_path, {"conversations": ASK + ANSWER})
    assert 'write `fields = { messages = "conversations" }` in the dataset' in error.help
    error = bad(inputs, tmp_path, {"messages": said})
    assert 'fields = { role = "from", content = "value" }' in error.help
    row = {"question": "q", "chosen": "yes", "rejected": "no"}
    error = bad(inputs, tmp_path, row, form="preferences")
    assert 'fields = { prompt = "question" }' in error.help
    error = bad(inputs, tmp_path, {"question": "q"}, form="prompts")
    assert 'fields = { prompt = "question" }' in error.help


def test_unknown_roles_are_named_with_those_that_are_known(inputs, tmp_path):
    row = {"messages": [{"role": "human", "content": "q"}, *ANSWER]}
    error = bad(inputs, tmp_path, row)
    assert "the unknown role `human`; the protocol knows system, user, assistant" in error.message
    assert 'role = "role"' in error.help
    (found,), _ = made(
        inputs, tmp_path, {"talk": row["messages"]}, fields={"messages": "talk", "role": "role"}
    )
    assert "user" in text(found)


def test_the_records_own_system_prompt_is_rendered(inputs, tmp_path):
    system = say("system: Be brief.")
    (plain,), _ = made(inputs, tmp_path, {"messages": system + ASK + ANSWER})
    for row in (
        {"messages": ASK + ANSWER},
        {"prompt": "q", "completion": "yes"},
        {"messages": system + ASK + ANSWER},
    ):
        (found,), _ = made(inputs, tmp_path, row | {"system": "Be brief."})
        assert found.tokens.tolist() == plain.tokens.tolist()
    row = {"prompt": "q", "chosen": "yes", "rejected": "no", "system": "Be brief."}
    (found,), _ = made(inputs, tmp_path, row, form="preferences")
    assert "Be brief." in text(found)
    row = {"messages": say("system: Be long.") + ASK + ANSWER, "system": "Be brief."}
    assert "not the same system prompt" in bad(inputs, tmp_path, row).message


def test_plain_texts_with_tools_are_messages(inputs, tmp_path):
    tools = [{"type": "function", "function": {"name": "look"}}]
    (plain,), _ = made(inputs, tmp_path, {"messages": ASK + ANSWER, "tools": tools})
    (found,), _ = made(inputs, tmp_path, {"prompt": "q", "completion": "yes", "tools": tools})
    assert found.tokens.tolist() == plain.tokens.tolist()
    row = {"prompt": "q", "chosen": "yes", "rejected": "no", "tools": tools}
    (found,), _ = made(inputs, tmp_path, row, form="preferences")
    assert "look" in text(found)
    lines(tmp_path / "d.jsonl", {"prompt": "q", "tools": tools})
    result, _ = make(job("prompts"), inputs, tmp_path)
    written = json.loads((result / "prompts.jsonl").read_text())
    assert written == {"messages": ASK, "tools": tools, "place": "d.jsonl:1"}


@pytest.mark.parametrize("key", ["images", "audio", "chat_template_kwargs"])
def test_what_no_text_can_hold_is_a_bad_line(key, inputs, tmp_path):
    error = bad(inputs, tmp_path, {"messages": ASK + ANSWER, key: [{"path": "a.png"}]})
    assert f"the record has `{key}`, which is not rendered" in error.message
    made(inputs, tmp_path, {"messages": ASK + ANSWER, key: []})


def test_messages_in_a_text_are_messages(inputs, tmp_path):
    (plain,), _ = made(inputs, tmp_path, {"messages": ASK + ANSWER})
    (found,), _ = made(inputs, tmp_path, {"messages": json.dumps(ASK + ANSWER)})
    assert found.tokens.tolist() == plain.tokens.tolist()
    row = {"prompt": str(ASK), "completion": "yes"}
    assert "looks like a list of messages but is not JSON" in bad(inputs, tmp_path, row).message


def test_where_no_prompt_gives_a_pair_the_reasons_are_said(inputs, tmp_path):
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "pairs.jsonl").touch()
    roles = inputs | {"from.0": tmp_path / "drawn"}
    source = {"kind": "job", "file": "pairs.jsonl"}
    asked = job("preferences", source=source).model_copy(update={"name": "drafts.pairs"})
    with pytest.raises(DataError, match="no prompt has two answers that ended") as problem:
        make(asked, roles, tmp_path)
    assert "`temperature` of `drafts`" in problem.value.help
    assert "leave `drafts.pairs` out of `data`" in problem.value.help
