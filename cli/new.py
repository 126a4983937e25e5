"""`etude new`: a spec from a template, by questions at a terminal or by options; or a site file."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options
from .common import problem, show
from .files import write_new
from .screen import say

if TYPE_CHECKING:
    from ..authoring.model_parts import Model


class _Refused(Exception):
    """The command line or something on the machine is wrong; already reported."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude new` to its parser, including one option per question."""
    from ..authoring.questions import QUESTIONS
    from ..authoring.templates import TEMPLATES
    from ..authoring.tuning import NEEDS
    from .queueing import ENGINES

    parser.add_argument("name", nargs="?", metavar="NAME", help="the recipe's name, or the site's")
    parser.add_argument(
        "--template",
        choices=tuple(dict.fromkeys([*TEMPLATES, *NEEDS])),
        help="the template to start from",
    )
    parser.add_argument(
        "--weights",
        metavar="FOLDER",
        help="with sft, dpo or align: published weights to tune, on the files of --data",
    )
    parser.add_argument(
        "--on",
        choices=tuple(ENGINES),
        help="write a site file, with the settings of your cluster account",
    )
    parser.add_argument("--list", action="store_true", help="show the templates and their options")
    parser.add_argument("-o", "--output", metavar="SPEC", help="the file to write (NAME.etude)")
    options.replacing(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask; take the defaults")
    options.after(parser)
    for name, question in QUESTIONS.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=question.help)
    parser.add_argument("--json", action="store_true", help="with --list: as JSON")


def run(args: Namespace) -> int:
    if args.on:
        from ..authoring.questions import QUESTIONS
        from .new_site import run as new_site

        return new_site(args, ("template", "list", "yes", "after", "json", *QUESTIONS))
    if args.list:
        _list(args.json)
        return 0
    try:
        return _new(args)
    except _Refused as refused:
        return refused.code
    except EOFError:
        problem("there was no answer", "give it as an option, see etude new --help")
        return 1


def _list(as_json: bool) -> None:
    from ..authoring.templates import TEMPLATES
    from ..authoring.tuning import ABOUT, NEEDS

    tuned = [
        (name, ABOUT[name], ("weights", *(needs if len(needs) > 1 else ("data",))))
        for name, needs in NEEDS.items()
    ]
    if as_json:
        shown = [
            {"template": name, "about": about, "options": options}
            for name, about, options in [
                *((name, each.line, each.asks) for name, each in TEMPLATES.items()),
                *tuned,
            ]
        ]
        print(json.dumps(shown, indent=2))
        return
    for name, template in TEMPLATES.items():
        options = ", ".join(f"--{option}" for option in template.asks)
        say(template.line, first=f"{name:<14} ", rest=" " * 15)
        say(options, first=" " * 15, rest=" " * 15)
    for name, about, options in tuned:
        say(about, first=f"{name:<14} ", rest=" " * 15)
        say(", ".join(f"--{option}" for option in options), first=" " * 15, rest=" " * 15)


def _new(args: Namespace) -> int:
    from ..authoring.questions import QUESTIONS
    from ..authoring.templates import TEMPLATES, asked, text_of
    from ..authoring.tree import ConfigError
    from ..authoring.tuning import NEEDS
    from ..spec.text.keywords import advice, why_no_name

    asks = sys.stdin.isatty() and sys.stdout.isatty() and not args.yes
    template = args.template
    if template is None and asks:
        _list(as_json=False)
        template = _ask("Template", "quickstart", tuple(TEMPLATES))
    if template is None:
        known = " | ".join(dict.fromkeys([*TEMPLATES, *NEEDS]))
        problem("which template?", f"--template {known}; see etude new --list")
        return 2
    name = args.name or (_ask("Name of the recipe", template) if asks else template)
    if why := why_no_name(name):
        problem(why, advice(name, "recipe"))
        return 2
    target = Path(args.output or f"{name}.etude")
    if args.output != "-" and target.exists() and not args.force:
        problem(f"{target} already exists", "choose another name, or --force to replace it")
        return 1
    if args.weights or template not in TEMPLATES:
        if template not in NEEDS:
            problem("--weights is not an option here", f"templates: {', '.join(NEEDS)}")
            return 2
        from .new_tuned import run as tuned

        return tuned(args, template, name, target)
    file, model = _base(args, template, target, asks)
    given = {each: getattr(args, each) for each in QUESTIONS}
    answers: dict[str, Any] = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "after": file,
    }
    for each in TEMPLATES[template].asks:
        if each in asked(template, answers, after=model is not None):
            answers[each] = _answer(each, given.pop(each), answers, asks)
    for each, text in given.items():
        if text is not None:
            problem(f"--{each} is not an option here", _meaning(template, answers, model))
            return 2
    try:
        text = text_of(template, answers, model)
    except ConfigError as trouble:
        problem(trouble.message, trouble.help)
        return 2
    if args.output == "-":
        sys.stdout.write(text)
        return 0
    if not write_new(target, text, force=args.force):
        return 1
    print(f"wrote {target}; next: etude check {target}")
    return 0


def _meaning(template: str, answers: dict[str, Any], model: "Model | None") -> str:
    from ..authoring.templates import asked

    options = [f"--{each}" for each in asked(template, answers, after=model is not None)]
    why = " with --after" if model else f" of size {answers['size']}" if "size" in answers else ""
    return f"{template}{why} takes {', '.join(options) or 'no options'}"


def _answer(name: str, given: str | None, answers: dict[str, Any], asks: bool) -> Any:
    """The value of an answer: from its option, from the user at the terminal, or the default."""
    from ..authoring.questions import QUESTIONS
    from ..authoring.tree import ConfigError

    question = QUESTIONS[name]
    default = question.default(answers)
    while True:
        text = given
        if text is None:
            text = _ask(question.ask, default, question.choices) if asks else default
        try:
            return question.read(text)
        except ConfigError as trouble:
            problem(f"--{name}: {trouble.message}" if given else trouble.message, trouble.help)
            if given is not None or not asks:
                raise _Refused(2) from None


def _base(
    args: Namespace, template: str, target: Path, asks: bool
) -> "tuple[str | None, Model | None]":
    """The file of the spec that the new one continues from, and the model that it makes."""
    from ..authoring.base import base_of
    from ..authoring.templates import TEMPLATES
    from ..authoring.tree import ConfigError
    from ..spec.findings.diagnostics import Report

    after = args.after
    if not TEMPLATES[template].goes_on:
        if after:
            problem("--after is not an option here", f"{template} trains its own model")
            raise _Refused(2)
        return None, None
    if after is None and asks:
        after = _ask("Spec that trains the model (nothing: train one first)", "")
    if not after:
        return None, None
    report = Report()
    folder = Path() if args.output == "-" else target.parent
    try:
        found = base_of(Path(after), folder, report)
    except ConfigError as trouble:
        problem(trouble.message, trouble.help)
        raise _Refused(1) from None
    if found is None:
        show(report)
        raise _Refused(1)
    return found[0].file, found[1]


def _ask(question: str, default: str, choices: tuple[str, ...] = ()) -> str:
    from rich.prompt import Prompt

    return Prompt.ask(question, default=default, choices=list(choices) or None)
