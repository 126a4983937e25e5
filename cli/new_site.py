"""`etude new --on ENGINE`: a site file, which describes an account on a cluster."""

import re
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from .common import problem
from .files import write_new


def run(args: Namespace, others: Iterable[str]) -> int:
    """Writes a site file that explains every key.

    Args:
        others: names of options that are for specs.
    """
    from ..runtime.launchers import remote, sites, slurm_site

    given = [f"--{name}" for name in others if getattr(args, name)]
    if given:
        problem(f"{given[0]} has no meaning with --on", "a site file says nothing of a spec")
        return 2
    name = args.name or args.on
    if not re.fullmatch(r"[\w.-]+", name):
        problem(f"`{name}` is no name of a site", "write letters, digits, dots and dashes")
        return 2
    home = str(sites.folder())
    text = (
        slurm_site.template(home) if args.on == "slurm" else remote.template(args.on, home)
    ).replace("NAME", name)
    if args.output == "-":
        sys.stdout.write(text)
        return 0
    target = Path(args.output) if args.output else sites.folder() / f"{name}.toml"
    if not args.output:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as trouble:
            problem(f"{target.parent} cannot be made: {trouble.strerror}", "name a file with -o")
            return 1
    if not write_new(target, text, force=args.force):
        return 1
    site = target if args.output else name
    print(
        f"{target} is written; next: edit it, then etude launch SPEC --on {args.on} --site {site}"
    )
    return 0
