"""Chat templates from anywhere: they see the dialog and nothing else, and end."""

import time
from pathlib import Path

import pytest

from etude.runtime.data.dialogs.chat_template import Template
from etude.runtime.errors import DataError

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('made') }}",
        "{{ lipsum.__globals__['os'].mkdir('made') }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ strftime_now.__self__.__class__.__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ (messages|map(attribute='__class__')|list)[0].__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'content': 'other'}) }}",
        "{% set x = namespace(__class__=1) %}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{% extends '/etc/passwd' %}",
    ],
)
def test_a_template_reaches_nothing_beside_the_dialog(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = repr(MESSAGES)
    try:
        made = Template(text, {}).render(MESSAGES, None)
    except DataError:
        made = ""
    assert "root:" not in made
    assert "class" not in made
    assert repr(MESSAGES) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10**10 }}",
        "{{ 10**10 * 'x' }}",
        "{{ [1] * 10**9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 2 ** (10**9) }}",
        "{% for a in range(10**9) %}x{% endfor %}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_would_not_end_or_fill_the_memory_is_one_message(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(DataError, match=r"it (makes|counts) more than"):
        Template(text, {}).render(MESSAGES, None)
    assert time.process_time() - begin < 5


def test_what_templates_do_is_allowed_for_each_dialog() -> None:
    text = "{% for i in range(messages|length) %}{{ '=' * 3 ~ 2 * 3 ~ 2 ** 3 }}{% endfor %}"
    template = Template(text, {})
    assert template.render(MESSAGES * 9, None) == "===68" * 9
    large = Template("{% for i in range(900000) %}{% endfor %}", {})
    assert [large.render(MESSAGES, None) for _ in range(2)] == ["", ""]
