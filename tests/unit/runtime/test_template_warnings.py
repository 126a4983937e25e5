"""What a chat template does in silence is said once a data set."""

import json
from pathlib import Path

import pytest
from specs import HEAD
from test_dialog import say

from etude.cli.main import main
from etude.runtime.data.dialogs.dialog import renderer
from etude.runtime.data.tokens import tokenizer

MARKED = """{% for m in messages %}{{ '<start>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content }}INSIDE{% endgeneration %}OUTSIDE
{%- else %}{{ m.content + '<end>' }}{% endif %}{{ '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start>assistant\n' }}{% endif %}"""
STOPS = MARKED.replace("INSIDE", "{{ '<end>' }}").replace("OUTSIDE", "")
ENDLESS = MARKED.replace("OUTSIDE", "{{ '<end>' }}").replace("INSIDE", "")
# Whoever is not the assistant is the user.
ONE_OTHER = """{% for m in messages %}
{%- if m.role == 'assistant' %}{{ m.content + '<end>' }}{% else %}{{ 'U: ' + m.content + ' A: ' }}
{%- endif %}{% endfor %}"""
BY_NAME = """{% for m in messages %}{{ '<start>' + m.role + '\\n' + m.content + '<end>' }}
{% endfor %}{% if add_generation_prompt %}{{ '<start>assistant\\n' }}{% endif %}"""
TALK = say("user: hello", "assistant: well")
LED = say("system: be kind", "user: hello", "assistant: well", "tool: 7", "assistant: seven")


@pytest.fixture(scope="module")
def made() -> object:
    return tokenizer.byte_level(["<start>", "<end>"])


def said(made: object, folder: Path, template: str, *dialogs: list) -> list[str]:
    (folder / "chat.jinja").write_text(template)
    found = renderer({"template": "chat.jinja"}, made, folder)  # type: ignore[arg-type]
    for messages in dialogs:
        found.render(messages)
    return found.warnings()


def test_an_end_that_is_not_learned_is_said(made: object, tmp_path: Path) -> None:
    assert said(made, tmp_path, STOPS, TALK) == []
    (warning,) = said(made, tmp_path, ENDLESS, TALK)
    assert "do not contain the end of the turn" in warning
    assert "move `{% endgeneration %}` behind the token" in warning


def test_a_role_that_the_template_takes_for_another_is_said_once(
    made: object, tmp_path: Path
) -> None:
    found = said(made, tmp_path, ONE_OTHER, TALK, LED, LED)
    roles = [each.partition("role ")[2].partition(":")[0] for each in found]
    assert roles == ["`system`", "`tool`"]


@pytest.mark.parametrize("template", [BY_NAME, STOPS])
def test_a_role_that_is_written_by_its_name_is_known(
    template: str, made: object, tmp_path: Path
) -> None:
    assert said(made, tmp_path, template, LED) == []


def test_no_role_is_looked_for_that_does_not_occur(made: object, tmp_path: Path) -> None:
    assert said(made, tmp_path, ONE_OTHER, TALK) == []


SPEC = (
    HEAD + 'dataset talk { files = "talk.jsonl", kind = dialogs }\n'
    'dialog odd { template = "chat.jinja" }\n'
    "tokenizer words { train = { vocab = 300, on = [web] } }\n"
    "stage first: train { model = tiny, steps = 2, seq_len = 64, batch = 2 seqs, lr = 1e-3\n"
    "  data = web }\nstage chat: sft { from = first, steps = 2, batch = 2 seqs, lr = 1e-4\n"
    "  data = talk, dialog = odd }\n"
)


def folder_with(folder: Path, template: str) -> Path:
    (folder / "chat.jinja").write_text(template)
    (folder / "talk.jsonl").write_text((json.dumps({"messages": LED}) + "\n") * 3)
    (folder / "spec.etude").write_text(SPEC)
    return folder / "spec.etude"


def test_preview_and_prepare_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = folder_with(tmp_path, ONE_OTHER.replace("<end>", "<|end_of_text|>"))
    main(["preview", str(spec), "talk"])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert shown.count("warning: the chat template does not know the role `tool`") == 1
    assert main(["prepare", str(spec), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    warnings = [each["message"] for each in events if each["event"] == "warning"]
    assert sum("the data set `talk`: the chat template does not know" in w for w in warnings) == 2
