"""Writes spec/text/tables.json, the parse tables for specs, which lark makes from the grammar.

    python docs/parse_tables.py

States are numbered in the order of a walk from the start, so the same grammar gives the same file.
"""

import json
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule, Terminal
from lark.lexer import TerminalDef
from lark.parsers.lalr_analysis import Shift

from etude.spec.text.keywords import SHAPES
from etude.spec.text.reader import DROP, INLINE, KEEP

FOLDER = Path(__file__).resolve().parents[1] / "spec" / "text"
TARGET = FOLDER / "tables.json"


def grammar() -> str:
    """The grammar, with the shapes of ramps in the language."""
    text = (FOLDER / "grammar.lark").read_text(encoding="utf-8")
    return text.replace("SHAPES", "|".join(SHAPES))


def parser() -> Lark:
    """Lark's own parser, whose tables and lexer etude's are modelled on."""
    return Lark(grammar(), parser="lalr", lexer="contextual", propagate_positions=True)


def text() -> str:
    """The file, with one row per state to make changes readable."""
    frontend: Any = parser().parser
    table = frontend.parser._parse_table
    terminals = sorted(frontend.lexer_conf.terminals, key=_choice)
    states = _walk(table)
    numbers = {state: number for number, state in enumerate(states)}
    rules: dict[Rule, int] = {}
    rows = [
        {
            symbol: numbers[argument]
            if action is Shift
            else ~rules.setdefault(argument, len(rules))
            for symbol, (action, argument) in sorted(table.states[state].items())
        }
        for state in states
    ]
    parts = {
        "terminals": [[t.name, t.pattern.to_regexp()] for t in terminals],
        "reductions": [_reduction(rule) for rule in rules],
        "states": rows,
    }
    head = {
        "spelled": {t.pattern.value: t.name for t in terminals if t.pattern.type == "str"},
        "ignored": sorted(frontend.lexer_conf.ignore),
        "end": numbers[table.end_states["start"]],
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    for name, entries in parts.items():
        inside = ",\n".join(json.dumps(entry) for entry in entries)
        lines.append(f"{json.dumps(name)}: [\n{inside}\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _choice(terminal: TerminalDef) -> tuple[int, int, int, str]:
    """The sort key by which lark's lexer chooses among matching terminals."""
    pattern = terminal.pattern
    return -terminal.priority, -pattern.max_width, -len(pattern.value), terminal.name


def _walk(table: Any) -> list[int]:
    """The states, in the order of a walk from the start."""
    found = {table.start_states["start"]: None}
    waiting = list(found)
    while waiting:
        actions = table.states[waiting.pop(0)]
        for _, (action, argument) in sorted(actions.items()):
            if action is Shift and argument not in found:
                found[argument] = None
                waiting.append(argument)
    return list(found)


def _reduction(rule: Rule) -> list[Any]:
    parts = [
        (DROP if symbol.filter_out else KEEP)
        if isinstance(symbol, Terminal)
        else INLINE
        if symbol.name.startswith("_")
        else KEEP
        for symbol in rule.expansion
    ]
    origin = str(rule.origin.name)
    return [origin, parts, rule.alias or ("" if origin.startswith("_") else origin)]


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
