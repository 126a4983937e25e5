"""`etude completion`: prints a completion script for a shell."""

import argparse
from argparse import ArgumentParser, Namespace
from typing import Any

import shtab

CONFIGS = ("*.yaml", "*.yml", "*.toml", "*.json")
COMPLETE = "complete"
"""The attribute of an action that tells shtab how to complete it."""


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude completion` to its parser."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(args: Namespace) -> int:
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """The completion script of a shell."""
    from .main import parser

    main = parser()
    for command in _commands(main):
        for action in command._actions:
            _complete(action)
    return shtab.complete(main, shell)


def _commands(main: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    (commands,) = (a for a in main._actions if isinstance(a, argparse._SubParsersAction))
    return list(commands.choices.values())


def _complete(action: argparse.Action) -> None:
    """Sets how an argument is completed, from its name in the help."""
    from ..authoring.questions import QUESTIONS
    from ..spec.findings.codes import known

    kinds: dict[str, Any] = {
        "SPEC": shtab.glob("*.etude", "*.json"),
        "SPEC_OR_PLAN": shtab.glob("*.etude", "*.json"),
        "CONFIG": shtab.glob(*CONFIGS),
        "PLAN": shtab.FILE,
        "FILE": shtab.FILE,
        "FOLDER": shtab.DIRECTORY,
    }
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if metavar in kinds:
        setattr(action, COMPLETE, kinds[metavar])
    elif metavar == "CODE":
        action.choices = known()
    elif action.dest in QUESTIONS and not action.choices:
        action.choices = QUESTIONS[action.dest].choices or None
