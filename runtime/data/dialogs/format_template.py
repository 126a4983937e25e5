"""Jinja templates, for other programs, equivalent to the protocols of headers and ends."""

import json
import re

from .protocols import IPYTHON, TOOL_INTRODUCTION, Format


def quoted(text: str) -> str:
    """A Jinja literal; braces and percent signs are split, lest they end the block."""
    return re.sub(r"[{}%#]", lambda m: f"\\x{ord(m[0]):02x}", json.dumps(text, ensure_ascii=False))


def template_of(form: Format, begin: str, system: str | None) -> str:
    """A Jinja template, for other programs, that renders as `FormatRenderer` does."""
    before, _, after = form.header.partition("{role}")
    role = "role"
    if form.tools:
        role = f"('{IPYTHON}' if role == 'tool' else role)"
    trim = " | trim" if form.strip else ""
    known = json.dumps(list(form.roles))
    lines = [
        "{%- macro header(role) %}",
        f"{{{{- {quoted(before)} + {role} + {quoted(after)} }}}}",
        "{%- endmacro %}",
        f"{{{{- {quoted(begin)} }}}}",
        "{%- set head = namespace(text='') %}",
    ]
    if form.tools:
        lines += [
            "{%- if tools %}",
            f"{{%- set head.text = {quoted(f'Environment: {IPYTHON}{chr(10)}')} "
            f"+ {quoted(TOOL_INTRODUCTION)} %}}",
            "{%- for tool in tools %}",
            "{%- set head.text = head.text + (tool | tojson(indent=4)) + '\\n\\n' %}",
            "{%- endfor %}",
            "{%- endif %}",
        ]
    else:
        lines += [
            "{%- if tools %}{{- raise_exception('this protocol has no tools') }}{%- endif %}",
        ]
    lines += [
        f"{{%- set default = {quoted(system or '')} %}}",
        "{%- if messages[0]['role'] != 'system' and (head.text or default) %}",
        "{{- header('system') }}",
        f"{{{{- (head.text + default){trim} }}}}",
        f"{{{{- {quoted(form.end)} }}}}",
        "{%- endif %}",
        "{%- for message in messages %}",
        f"{{%- if message['role'] not in {known} %}}",
        "{{- raise_exception('unknown role ' + message['role']) }}",
        "{%- endif %}",
        f"{{%- set text = (message['content'] or ''){trim} %}}",
        "{%- if loop.first and message['role'] == 'system' %}",
        f"{{%- set text = (head.text + text){trim} %}}",
        "{%- endif %}",
        "{%- set calls = message['tool_calls'] or [] %}",
        "{%- if message['role'] != 'assistant' %}",
        "{{- header(message['role']) + text + " + quoted(form.end) + " }}",
        "{%- else %}",
        *_assistant_lines(form),
        "{%- endif %}",
        "{%- endfor %}",
        "{%- if add_generation_prompt %}{{- header('assistant') }}{%- endif %}",
    ]
    return "\n".join(lines) + "\n"


def _assistant_lines(form: Format) -> list[str]:
    more, end = quoted(form.more or form.end), quoted(form.end)
    follows = "(loop.nextitem is defined and loop.nextitem['role'] == 'assistant')"
    lines = [
        "{%- set to_ipython = message['to'] == 'ipython' %}",
        "{%- if text | trim %}",
        "{{- header('assistant') }}",
    ]
    if not form.tools:
        return [
            "{%- if calls %}{{- raise_exception('this protocol has no tools') }}{%- endif %}",
            *lines,
            f"{{{{- text + ({more} if to_ipython or {follows} else {end}) }}}}",
            "{%- endif %}",
        ]
    return [
        *lines,
        "{%- if to_ipython and not calls %}",
        f"{{{{- {quoted(form.code)} + text + {more} }}}}",
        "{%- else %}",
        f"{{{{- text + ({more} if calls or {follows} else {end}) }}}}",
        "{%- endif %}",
        "{%- endif %}",
        "{%- for call in calls %}",
        "{%- set called = call['function'] or call %}",
        "{%- set given = called['arguments'] if called['arguments'] is defined else {} %}",
        "{{- header('assistant') + '{\"name\": ' + (called['name'] | tojson) }}",
        "{{- ', \"parameters\": ' + (given if given is string else given | tojson) + '}' }}",
        f"{{{{- {more} }}}}",
        "{%- endfor %}",
    ]
