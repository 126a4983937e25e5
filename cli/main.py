"""The command `etude`: reads the command line and hands over to one module."""

import argparse
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence

TEMPLATES = ("quickstart", "pretrain", "long_context", "align", "post_training")
ANSWERS = {
    "size": "size of the model: tiny, or a published one such as 8B",
    "tokens": "tokens to train on, such as 15T",
    "gpus": "GPUs in all",
    "gpu": "kind of GPU",
    "data": "files of documents",
    "dialogs": "files of dialogs",
    "preferences": "files of preferences",
    "prompts": "files of prompts",
    "tokenizer": "tokenizer on the Hugging Face Hub",
    "length": "longest sequence, such as 128Ki",
    "rounds": "number of rounds",
}
"""The templates and answers of `etude new`; a test compares them with `etude.authoring`."""


def parser() -> argparse.ArgumentParser:
    """The command line; each command's module has `run(arguments) -> exit code`."""
    main = argparse.ArgumentParser(
        prog="etude", description="Compile, check, plan and run LLM training recipes."
    )
    main.add_argument("--version", action="store_true", help="show the version and exit")
    commands = main.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help)

    def ranks(of: argparse.ArgumentParser) -> None:
        of.add_argument(
            "--ranks",
            type=_positive,
            metavar="N",
            help="run every stage on N CPU processes of this machine, whatever cluster it names",
        )

    def miniature(of: argparse.ArgumentParser) -> None:
        of.add_argument(
            "--miniature",
            action="store_true",
            help="the recipe's miniature: the same graph and changes, small enough for a laptop",
        )

    def detailed(of: argparse.ArgumentParser) -> None:
        of.add_argument(
            "--detailed-exitcode",
            action="store_true",
            help="exit with 0 where nothing differs, 1 on errors, 2 where something does",
        )

    def changes(of: argparse.ArgumentParser) -> None:
        of.add_argument("--variant", metavar="NAME", help="a variant of the recipe")
        of.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="PATH=VALUE",
            help="change a value, as in --set pretrain.lr=3e-4; may be repeated",
        )

    check = command("check", "Check specs and show everything that is wrong, all at once.")
    check.add_argument("files", nargs="+", metavar="SPEC")
    check.add_argument(
        "--format",
        choices=["human", "json", "sarif", "github"],
        default="human",
        help="how findings are written: for people, as JSON, as SARIF 2.1.0, or as GitHub's "
        "annotations",
    )
    check.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        help="the same as --format json",
    )
    check.add_argument("--strict", action="store_true", help="warnings fail the check, too")
    ranks(check)
    changes(check)

    fmt = command("fmt", "Lay specs out in the canonical way, or write one as JSON or as text.")
    fmt.add_argument("files", nargs="+", metavar="SPEC", help="files; - is standard input")
    fmt.add_argument("--check", action="store_true", help="write nothing; exit 1 if one differs")
    fmt.add_argument("--diff", action="store_true", help="write nothing; show what would change")
    fmt.add_argument(
        "--to",
        choices=["json", "etude"],
        help="write one spec, as text or JSON, to standard output; JSON has no comments",
    )

    plan = command("plan", "Show what would run: tokens, steps, schedules, mixtures, epochs.")
    plan.add_argument("file", metavar="SPEC")
    plan.add_argument("-o", "--output", metavar="PLAN", help="write the plan as JSON to a file")
    plan.add_argument("--json", action="store_true", help="the plan as JSON on standard output")
    plan.add_argument("--html", metavar="PAGE", help="write the plan as one HTML page to a file")
    plan.add_argument(
        "--provenance", action="store_true", help="show every value and where it came from"
    )
    plan.add_argument(
        "--why", metavar="STAGE.FIGURE", help="explain a figure, such as pretrain.memory"
    )
    plan.add_argument(
        "--deep",
        action="store_true",
        help="have torchtitan build every configuration without weights, at its true size",
    )
    plan.add_argument(
        "--emit",
        choices=["torchtitan"],
        help="print the plan's train jobs as configurations of torchtitan; -o names a folder",
    )
    ranks(plan)
    miniature(plan)
    changes(plan)

    plan.add_argument(
        "--against", metavar="EARLIER", help="show what differs from a plan, run folder or spec"
    )
    detailed(plan)

    preview = command("preview", "Show what stages see of their data, and what they learn of it.")
    preview.add_argument("file", metavar="SPEC")
    preview.add_argument(
        "target",
        nargs="?",
        metavar="STAGE|DATASET",
        help="one stage, or one data set (default: the data of all stages that train)",
    )
    preview.add_argument(
        "-n",
        "--records",
        type=_positive,
        default=2,
        metavar="N",
        help="show so many records or rows of each source (default: 2)",
    )
    preview.add_argument("--full", action="store_true", help="shorten nothing")
    preview.add_argument(
        "--folder",
        metavar="FOLDER",
        help="the run folder, for what the run has made already (default: runs/RECIPE)",
    )
    preview.add_argument("--json", action="store_true", help="a list of records as JSON")
    miniature(preview)
    changes(preview)

    diff = command("diff", "Show what a plan would do otherwise than another one, and why.")
    diff.add_argument("old", metavar="OLD", help="a spec, a plan or a run folder")
    diff.add_argument("new", metavar="NEW", help="the same")
    diff.add_argument("--json", action="store_true", help="as JSON")
    detailed(diff)

    verify = command("verify", "Compare the figures that specs claim with those of their plans.")
    verify.add_argument("paths", nargs="+", metavar="PATH", help="specs, and folders of specs")
    verify.add_argument("--sources", action="store_true", help="list what is assumed, and why")
    verify.add_argument("--markdown", action="store_true", help="as a Markdown table")
    verify.add_argument("--json", action="store_true", help="as JSON")

    run = command("run", "Run a spec or a plan; continue where an earlier run of it stopped.")
    run.add_argument("file", metavar="SPEC_OR_PLAN")
    run.add_argument("--folder", metavar="FOLDER", help="the run folder (default: runs/RECIPE)")
    run.add_argument("--json", action="store_true", help="events as JSON lines")
    ranks(run)
    run.add_argument(
        "--prepare",
        action="store_true",
        help="make tokenizers and data sets, and train nothing",
    )
    miniature(run)
    changes(run)

    status = command("status", "Show how far a run is.")
    status.add_argument("folder", metavar="FOLDER")
    status.add_argument("--json", action="store_true", help="as JSON")

    report = command("report", "Show what a run has found out: losses, scores, gates, samples.")
    report.add_argument("folder", metavar="FOLDER")
    report.add_argument("--json", action="store_true", help="as JSON")

    explain = command("explain", "Explain a code, with an example that is wrong and one fixed.")
    explain.add_argument("code", metavar="CODE")
    explain.add_argument("--json", action="store_true", help="as JSON")

    new = command("new", "Start a spec from a template, by questions or by options.")
    new.add_argument("name", nargs="?", metavar="NAME", help="the recipe's name")
    new.add_argument("--template", choices=TEMPLATES, help="what to start from")
    new.add_argument("--list", action="store_true", help="show the templates and their options")
    new.add_argument("-o", "--output", metavar="SPEC", help="the file to write (NAME.etude)")
    new.add_argument("--force", action="store_true", help="replace a file that is there")
    new.add_argument("--yes", action="store_true", help="ask nothing: take the defaults")
    new.add_argument(
        "--after", metavar="SPEC", help="a spec that trains the model to continue with"
    )
    for name, what in ANSWERS.items():
        new.add_argument(f"--{name}", metavar=name.upper(), help=what)
    new.add_argument("--json", action="store_true", help="with --list: as JSON")

    importing = command("import", "Make a spec of a torchtitan, nanotron or axolotl configuration.")
    importing.add_argument("file", metavar="CONFIG")
    importing.add_argument("-o", "--output", metavar="SPEC", help="the file to write")
    importing.add_argument("--force", action="store_true", help="replace a file that is there")
    importing.add_argument(
        "--from",
        dest="kind",
        choices=["torchtitan", "nanotron", "axolotl"],
        help="the program it belongs to (default: told by its content)",
    )
    importing.add_argument("--gpus", type=_positive, metavar="N", help="GPUs of the whole run")
    importing.add_argument("--gpu", metavar="NAME", help='their kind (default: "H100 80GB")')
    importing.add_argument(
        "--after", metavar="SPEC", help="a spec that trains the model to continue with"
    )
    importing.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="NAME=COUNT",
        help="tokens or pairs of a data set, as in --size web=12M; may be repeated",
    )
    importing.add_argument("--json", action="store_true", help="as JSON")

    command("lsp", "Start the language server, which editors talk to.")

    completion = command("completion", "Print what a shell needs to complete commands.")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])

    schema = command("schema", "Print the JSON Schema of a format.")
    schema.add_argument("format", choices=["plan", "spec"])
    return main


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 fine, 1 a problem, 2 usage, 3 stopped, 130."""
    arguments = parser().parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"etude {version('etude')}")
        return 0
    # Where the terminal's encoding lacks a character, a sign stands for it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # A command that checks or plans makes few cycles and ends soon: looking for them is in vain.
    # What trains turns the collector on again.
    gc.disable()
    if not arguments.command:
        parser().print_help()
        return 2
    try:
        name = "import_" if arguments.command == "import" else arguments.command
        module = importlib.import_module(f".{name}", __package__)
        code = module.run(arguments)
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
