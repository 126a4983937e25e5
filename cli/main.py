"""The command `etude`: finds the module of a command and calls it."""

import argparse
import gc
import importlib
import io
import keyword
import os
import sys
from collections.abc import Collection, Sequence
from types import ModuleType

COMMANDS = {
    "check": "Check specs and report all errors and likely mistakes at once.",
    "fmt": "Format specs in the canonical layout, or convert one to JSON or text.",
    "plan": "Show what would run: tokens, steps, schedules, mixtures, epochs.",
    "preview": "Show the data as stages see it, and which tokens they learn.",
    "diff": "Show what differs between two plans: what is rerun, why, and at what cost.",
    "verify": "Compare the figures that specs claim with their plans.",
    "prepare": "Make the data of a spec or plan, or a part of them, without training.",
    "run": "Run a spec or a plan, or continue an earlier run.",
    "sweep": "Run a recipe at all combinations of some values, and compare the results.",
    "launch": "Submit a run to Slurm, Kubernetes or SkyPilot, as jobs for one or more phases.",
    "status": "Show the progress of a run.",
    "watch": "Follow a run until it ends: progress, losses, speed, time left.",
    "logs": "Show the output of a run's ranks.",
    "cancel": "Stop a run, queued or running.",
    "export": "Write the model of a stage as a Hugging Face folder.",
    "push": "Push the model of a stage to the Hugging Face Hub.",
    "clean": "List and remove what a run folder no longer needs.",
    "report": "Show the results of a run: losses, scores, gates, samples.",
    "explain": "Explain an error code, with a wrong and a fixed example.",
    "new": "Start a spec from a template, by questions or by options.",
    "import": "Convert a torchtitan, nanotron, axolotl or TRL configuration to a spec.",
    "lsp": "Start the language server for editors.",
    "completion": "Print a completion script for a shell.",
    "schema": "Print the JSON Schema of a format.",
}
"""The help line of each command. The command's module has `arguments(parser)`, which adds to its
parser, and `run(args) -> exit code`."""


def parser(complete: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The command-line parser.

    Args:
        complete: the commands that get their arguments. Only their modules are imported.
    """
    main = argparse.ArgumentParser(
        prog="etude", description="Compile, check, plan and run LLM training recipes."
    )
    main.add_argument("--version", action="store_true", help="show the version and exit")
    commands = main.add_subparsers(dest="command", metavar="COMMAND")
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line)
        if name in complete:
            _module(name).arguments(command)
    return main


def _module(command: str) -> ModuleType:
    name = f"{command}_" if keyword.iskeyword(command) else command
    return importlib.import_module(f".{name}", __package__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 success, 1 a problem, 2 usage, 3 a person must
    decide, 75 stopped and can be restarted, 130 interrupted."""
    given = sys.argv[1:] if argv is None else argv
    # The first word that is not an option is the command: etude's own options take no values.
    called = next((word for word in given if not word.startswith("-")), "")
    try:
        args = parser([called]).parse_args(given)
        args.alone = argv is None  # the process is there for this command, and ends with it
        if args.version:
            from importlib.metadata import version

            print(f"etude {version('etude')}")
            return 0
        # Characters that the terminal's encoding lacks are replaced.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        # Commands that check or plan make few cycles and end soon, so collecting them is useless.
        # Training turns the collector on again.
        gc.disable()
        if not args.command:
            parser(()).print_help()
            return 2
        code = _module(args.command).run(args)
        if not sys.stdout.closed:  # the language server closes it
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        from ..runtime.errors import RunError

        if isinstance(problem, RunError):  # a run folder is damaged: most commands only read it
            from .common import problem as say

            say(problem.message, problem.help)
            return problem.exit_code
        if os.environ.get("ETUDE_DEBUG"):
            raise
        print(
            f"etude: this is a bug in etude: {type(problem).__name__}: {problem}\n"
            "  = help: run again with ETUDE_DEBUG=1 and report what it shows",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
