"""Converts configurations of other programs to specs, and lists what is lost."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from . import from_axolotl, from_nanotron, from_torchtitan, from_trl
from . import writing as w
from .config import Config, Finding, shorten
from .draft import Draft, Options
from .tree import ConfigError, read

KINDS: dict[str, tuple[Callable[[Config], bool], Callable[[Config, Options, str], Draft]]] = {
    "torchtitan": (from_torchtitan.is_torchtitan, from_torchtitan.draft),
    "nanotron": (from_nanotron.is_nanotron, from_nanotron.draft),
    "axolotl": (from_axolotl.is_axolotl, from_axolotl.draft),
    "trl": (from_trl.is_trl, from_trl.draft),
    **{
        f"trl-{command}": (
            partial(from_trl.fits, command),
            partial(from_trl.draft, command=command),
        )
        for command in from_trl.OWN
    },
}
"""Kind → a test for its configurations, and the function that converts them."""

_HEADINGS = {
    "lost": "Not converted",
    "assumed": "Assumed",
}


class Imported(NamedTuple):
    """A spec, and how every value of the configuration was converted."""

    kind: str
    text: str
    findings: list[Finding]

    def of(self, fate: str) -> list[Finding]:
        """The findings with this fate."""
        return [finding for finding in self.findings if finding.fate == fate]


def import_config(
    text: str, file: str, *, kind: str | None = None, options: Options | None = None
) -> Imported:
    """Converts a configuration to a spec.

    Args:
        file: the configuration's name; gives its format and appears in comments.
        kind: a key of `KINDS`; None: detected from the content.

    Raises: ConfigError: the text cannot be read or its kind is unknown, or a required value is
        missing, of the wrong kind, or means a model or an objective that etude lacks.
    """
    options = options or Options()
    config = Config(read(text, toml=_is_toml(text, file)))
    told = next((known for known, (fits, _) in KINDS.items() if fits(config)), None)
    if kind is None and told is None:
        raise ConfigError(
            f"this is not a configuration of {', '.join(KINDS)}",
            help="torchtitan's Python configurations can be saved as JSON with "
            "--debug.save_config_file",
        )
    kind = kind or told or ""
    if not KINDS[kind][0](config):
        raise ConfigError(
            f"this is not a configuration of {kind}", help=f"it looks like {told}" if told else ""
        )
    title = file.rpartition("/")[2].rpartition(".")[0] or file
    draft = KINDS[kind][1](config, options, title)
    for unknown in sorted(draft.unused):
        known_here = ", ".join(sorted(draft.taken - _base(options)))
        raise ConfigError(
            f"--size {unknown}: the spec has no such data set",
            help=f"its data sets are {known_here}",
        )
    findings = config.findings()
    name = shorten(file.rpartition("/")[2])
    parts = [w.comment(f"Imported from {name} ({kind})."), *draft.blocks]
    parts += _comments(findings)
    return Imported(kind, w.laid_out("\n\n".join(parts)), findings)


def _base(options: Options) -> frozenset[str]:
    return options.base.names if options.base else frozenset()


def _is_toml(text: str, file: str) -> bool:
    if file.endswith((".yaml", ".yml", ".json")):
        return False
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return file.endswith(".toml") or first.startswith("[") or " = " in first


def _comments(findings: list[Finding]) -> list[str]:
    """What the user should check, at the end of the spec."""
    sections = []
    for fate, heading in _HEADINGS.items():
        found = [finding for finding in findings if finding.fate == fate]
        if found:
            lines = [f"# {heading}:", *(w.item(describe(finding)) for finding in found)]
            sections.append("\n".join(lines))
    return sections


def describe(finding: Finding) -> str:
    """One line about one finding."""
    place = f" (line {finding.line})" if finding.line else ""
    value = f" = {finding.value}" if finding.value else ""
    return shorten(f"{finding.key}{value}{place}: {finding.reason}", 400)
