"""Compares what this working tree makes of specs with what a commit makes of them, byte for byte.

    python tests/compare_plans.py COMMIT [SPEC…] [--shown] [--keep FOLDER]

Both read the same specs, those of the working tree: all examples, the fixed examples of the pages
of codes, a spec with a block of every kind, and one of every template. Of each spec, of its
variants and of their miniatures it compares the plan, the plan on two ranks, the jobs as torchtitan
configurations, and the spec as JSON and as text. `--shown` also compares what people read: tables,
pages, findings and imports.

The exit code is 0 where everything is the same, 1 where anything differs, 2 where it cannot tell.
"""

import argparse
import gc
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from itertools import zip_longest
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REFUSED = ".refused"
RULES = "rules"
"""The folder of the fixed examples: many and small, so not everything is made of them."""
SHOWN = 20
"""So many differences are described."""


class CannotTell(Exception):
    """The comparison could not be made; the message says why."""


def packages(tree: Path, lib: Path) -> None:
    """Makes a folder from which Python imports the etude of a tree, as its pyproject.toml maps it.

    Args:
        tree: the root of a checkout.
        lib: the folder to make; its `etude` holds links into the tree.
    """
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    folders: Mapping[str, str] = project["tool"]["setuptools"]["package-dir"]
    home = lib / "etude"
    home.mkdir(parents=True)
    for file in (tree / folders["etude"]).iterdir():
        if file.name != "__pycache__":
            (home / file.name).symlink_to(file)
    for name, folder in folders.items():
        inside = name.split(".")[1:]
        if len(inside) == 1 and not (home / inside[0]).exists():
            (home / inside[0]).symlink_to(tree / folder)


def checked_out(commit: str, folder: Path, repository: Path) -> Path:
    """The files of a commit, in a folder.

    Raises: CannotTell: the repository has no such commit.
    """
    made = subprocess.run(
        ["git", "-C", str(repository), "archive", "--format=tar", commit], capture_output=True
    )
    if made.returncode:
        raise CannotTell(made.stderr.decode(errors="replace").strip())
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def copied(tree: Path, folder: Path) -> Path:
    """The packages of a tree as they are now: you may keep editing while plans are made."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    folder.mkdir()
    copy(tree / "pyproject.toml", folder)
    paths = project["tool"]["setuptools"]["package-dir"].values()
    for name in {path.partition("/")[0] for path in paths}:
        copytree(tree / name, folder / name, ignore=ignore_patterns("__pycache__"))
    return folder


def specs_of_the_project(folder: Path) -> None:
    """Writes the specs that are compared where none is named into a folder."""
    from whole_spec import spec

    from etude.cli.main import main
    from etude.compiler.examples import frame
    from etude.spec.findings.codes import known, rule

    copytree(ROOT / "examples", folder / "examples")
    copytree(ROOT / "tests" / "configs", folder / "configs")
    (folder / "whole.etude").write_text(spec())
    (folder / "templates").mkdir()
    with redirect_stdout(io.StringIO()) as listed, redirect_stderr(io.StringIO()):
        main(["new", "--list", "--json"])
        for name in (template["template"] for template in json.loads(listed.getvalue())):
            made = folder / "templates" / f"{name}.etude"
            main(["new", "--template", name, "--yes", "-o", str(made)])
    for code in known():
        example = rule(code).right
        for name, text in example.texts.items():
            file = folder / RULES / code / (name or "spec.etude")
            file.parent.mkdir(parents=True, exist_ok=True)
            before = frame(example.frame) if example.frame and not name else ""
            file.write_text(before + text, encoding="utf-8")


def make(specs: Path, out: Path, *, shown: bool) -> None:
    """Runs etude's commands on the specs of a folder, and keeps what they write in another one.

    A file whose name ends in `REFUSED` holds the exit code and the message of a command that fails.
    """
    os.chdir(specs)
    _run(out / "schemas" / "plan.json", "schema", "plan")
    _run(out / "schemas" / "spec.json", "schema", "spec")
    for spec in sorted(Path().rglob("*.etude")):
        _make_spec(spec, out / spec.with_suffix(""), shown=shown)
        gc.collect()  # the command line turns the collector off
    if shown:
        for config in sorted(Path().glob("configs/*")):
            _run(out / "imports" / f"{config.name}.etude", "import", str(config))


def _make_spec(spec: Path, out: Path, *, shown: bool) -> None:
    """Runs all commands on one spec, its variants and their miniatures."""
    _run(out / "spec.json", "fmt", "--to", "json", str(spec))
    _run(out / "spec.etude", "fmt", "--to", "etude", str(spec))
    if shown:
        _run(out / "findings.json", "check", "--json", str(spec), fails=True)
        _run(out / "findings.txt", "check", str(spec), fails=True)
    plan = _run(out / "plan.json", "plan", str(spec), "--json")
    for variant in ("", *(json.loads(plan)["variants"] if plan else ())):
        place = out / variant
        of = [str(spec), *(["--variant", variant] if variant else [])]
        if variant:
            _run(place / "plan.json", "plan", *of, "--json")
        _run(place / "emitted.py", "plan", *of, "--emit", "torchtitan")
        mini = place / "miniature"
        _run(mini / "plan.json", "plan", *of, "--json", "--miniature")
        if RULES not in spec.parts:
            _run(place / "plan_on_2_ranks.json", "plan", *of, "--json", "--ranks", "2")
            _run(mini / "emitted.py", "plan", *of, "--miniature", "--emit", "torchtitan")
        if shown:
            _run(place / "table.txt", "plan", *of)
            _run(place / "provenance.txt", "plan", *of, "--provenance")
            _run(mini / "table.txt", "plan", *of, "--miniature")
            _run(place / "page.txt", "plan", *of, "--html", str(place / "page.html"))


def _run(file: Path, *words: str, fails: bool = False) -> str:
    """Runs a command and writes its output to a file; returns it, and "" where the command fails.

    Args:
        fails: whether an exit code that is not 0 is a result like any other.
    """
    from etude.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code: object = main(list(words))
        except SystemExit as end:
            code = end.code
    file.parent.mkdir(parents=True, exist_ok=True)
    if code and not fails:
        file = file.with_name(file.name + REFUSED)
        file.write_text(f"exit code {code}\n{out.getvalue()}{err.getvalue()}", encoding="utf-8")
        return ""
    file.write_text(out.getvalue() + (err.getvalue() if fails else ""), encoding="utf-8")
    return out.getvalue()


def started(
    lib: Path, specs: Path, out: Path, *, shown: bool, seed: int
) -> "subprocess.Popen[str]":
    """A process that makes everything with the etude of a folder.

    Args:
        seed: of Python's hashes. Plans must not depend on it, so each tree has its own.
    """
    words = [sys.executable, "-P", __file__, "--make", str(specs), str(out)]
    own = {"PYTHONPATH": str(lib), "PYTHONHASHSEED": str(seed), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        words + ["--shown"] * shown,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def difference(old: str, new: str) -> str:
    """The first difference of two texts that are not the same: of JSON, the value's path."""
    try:
        found = next(_values("", json.loads(old), json.loads(new)), None)
    except ValueError:
        found = None
    if found:
        return found
    lines = enumerate(zip_longest(old.split("\n"), new.split("\n")), 1)
    number, (one, other) = next((n, pair) for n, pair in lines if pair[0] != pair[1])
    return f"line {number}: {_short(one)} became {_short(other)}"


def _values(path: str, old: Any, new: Any) -> Iterator[str]:
    """Where two values in JSON differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}".lstrip(".")
            if key not in new or key not in old:
                gone = key not in new
                yield f"{inner} {'is gone' if gone else 'is new'}: {_short((old | new)[key])}"
            else:
                yield from _values(inner, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        for number, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from _values(f"{path}[{number}]", one, other)
        if len(old) != len(new):
            yield f"{path} has {len(new)} entries, not {len(old)}"
    elif old != new or type(old) is not type(new):
        yield f"{path}: {_short(old)} became {_short(new)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:89]}…"


def differences(old: Path, new: Path) -> dict[str, list[str]]:
    """The files of two folders that differ, by what differs first in them."""
    texts = [
        {
            str(file.relative_to(folder)): file
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        for folder in (old, new)
    ]
    found: dict[str, list[str]] = {}
    for name in sorted(texts[0].keys() | texts[1].keys()):
        one, other = (file.read_bytes() if (file := of.get(name)) else None for of in texts)
        if one == other:
            continue
        if one is None or other is None:
            only = (one or other or b"").decode()
            what = f"made only by {'the commit' if other is None else 'the working tree'}: "
            what += _short(only.partition("\n")[2] if name.endswith(REFUSED) else only[:90])
        else:
            what = difference(one.decode(), other.decode())
        found.setdefault(what, []).append(name)
    return found


def compare(
    commit: str,
    work: Path,
    write_specs: Callable[[Path], None],
    *,
    shown: bool = False,
    repository: Path = ROOT,
) -> tuple[dict[str, list[str]], int, int]:
    """Makes everything with the working tree and with a commit.

    Args:
        work: an empty folder, to work in.
        write_specs: writes the specs into a folder.
        repository: the working tree, in which the commit is looked up, too.

    Returns: what differs (see `differences`), how many files were compared, and how many of these
    say that a command fails.

    Raises: CannotTell: there is no such commit, or one of the trees cannot make anything.
    """
    specs = work / "specs"
    specs.mkdir()
    write_specs(specs)
    trees = {
        "commit": checked_out(commit, work / "tree", repository),
        "working_tree": copied(repository, work / "copy"),
    }
    running = {}
    for seed, (name, tree) in enumerate(trees.items(), 1):
        packages(tree, work / "lib" / name)
        running[name] = started(work / "lib" / name, specs, work / name, shown=shown, seed=seed)
    for name, process in running.items():
        said = process.communicate()[0]
        if process.returncode:
            raise CannotTell(f"{name.replace('_', ' ')}: nothing could be made\n{said}")
    made = [file for file in (work / "working_tree").rglob("*") if file.is_file()]
    refused = sum(file.name.endswith(REFUSED) for file in made)
    return differences(work / "commit", work / "working_tree"), len(made), refused


def _copied(paths: list[str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for path in map(Path, paths):
            if path.is_dir():
                copytree(path, folder / path.name)
            else:
                (folder / path.name).write_bytes(path.read_bytes())

    return write


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    if words[:1] == ["--make"]:
        make(Path(words[1]), Path(words[2]), shown="--shown" in words)
        return 0
    reads = argparse.ArgumentParser(description="Compares plans with those of a commit.")
    reads.add_argument("commit", metavar="COMMIT")
    reads.add_argument("specs", nargs="*", metavar="SPEC", help="specs, or folders of specs")
    reads.add_argument("--shown", action="store_true", help="compare what people read, too")
    reads.add_argument("--keep", metavar="FOLDER", help="work in this new folder, and keep it")
    asked = reads.parse_args(words)
    write = _copied(asked.specs) if asked.specs else specs_of_the_project
    try:
        with TemporaryDirectory(prefix="compare_plans_") as temporary:
            work = Path(asked.keep or temporary).resolve()
            work.mkdir(parents=True, exist_ok=True)
            found, made, refused = compare(asked.commit, work, write, shown=asked.shown)
    except (CannotTell, OSError) as reason:
        print(reason, file=sys.stderr)
        return 2
    for what, names in list(found.items())[:SHOWN]:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"{', '.join(names[:3])}{more}:\n    {what}")
    if len(found) > SHOWN:
        print(
            f"… and {len(found) - SHOWN} other kinds of difference; --keep FOLDER keeps all files"
        )
    differ = sum(map(len, found.values()))
    print(f"{made:,} outputs, {refused:,} of them refusals: {differ:,} differ from {asked.commit}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
