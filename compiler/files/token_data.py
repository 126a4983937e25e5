"""Token files of data sets: present, complete, and all of one layout, judging by their headers."""

import glob
from pathlib import Path

from ...spec.findings.diagnostics import Report
from ...spec.quantity import short
from ...spec.schema import recipe as r
from .data_files import URL, Matched
from .token_files import Header, Unusable, advice, header, is_beside

_OFF = 20
"""Allowed difference, in percent, between the tokens of a spec and of the files."""


def check_tokens(dataset: r.Dataset, root: Path, report: Report, matched: Matched) -> None:
    """Reports the first file that a run would reject, and a wrong number of tokens."""
    span = dataset.at("tokenized")
    heads: dict[str, Header] = {}
    for pattern in dataset.tokenized or ():
        if URL in pattern:
            report.add(
                "E547",
                f"`{pattern}`, of the data set `{dataset.name}`, is a URL, and tokens are read "
                "where they are, through memory maps",
                span,
                help="mount it as a folder, or download it",
            )
            return
        found = matched(pattern, root)
        names = sorted(name for name in found if not is_beside(name))
        if not found:
            what = "no file matches" if glob.has_magic(pattern) else "there is no file"
            report.add(
                "N657",
                f"{what} `{pattern}`, of the data set `{dataset.name}`",
                span,
                help=advice(pattern, root)
                or f"looked for {(root / pattern).absolute()}: a run needs it before its first job",
            )
            return
        try:
            if not names:
                raise Unusable(
                    f"`{pattern}` names no tokens, but what lies beside them",
                    "name the files of the tokens: *.bin, *.npy or *.ds",
                )
            for name in names:
                heads[name] = _head(name, pattern, root, dataset.layout)
        except Unusable as problem:
            report.add("E547", problem.message, span, help=problem.help)
            return
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()
            report.add(
                "E547",
                f"a file of `{pattern}` cannot be read: {reason}",
                span,
                help="see who may read it",
            )
            return
    _same_layout(heads, dataset, report)
    _as_many(heads, dataset, report)


def _head(name: str, pattern: str, root: Path, layout: str | None) -> Header:
    path = root / name
    if path.is_dir():
        raise Unusable(
            f"`{name}` is a folder, not a file",
            f'name the files in it: `tokenized = "{pattern.rstrip("/")}/**/*.ds"`',
        )
    return header(path, name, layout)


def _same_layout(heads: dict[str, Header], dataset: r.Dataset, report: Report) -> None:
    kinds: dict[str, str] = {}
    for name, head in heads.items():
        kind = head.layout if head.layout in ("megatron", "datatrove") else f"{head.dtype} ids"
        kinds.setdefault(kind, name)
    if len(kinds) > 1:
        (kind, name), (other, second), *_ = kinds.items()
        report.add(
            "E547",
            f"{name} is of the layout `{kind}`, and {second} of `{other}`",
            dataset.at("tokenized"),
            help="write a data set for each layout, and mix them in the stage",
        )


def _as_many(heads: dict[str, Header], dataset: r.Dataset, report: Report) -> None:
    """Warns if the spec gives another number of tokens than the headers."""
    counts = [head.tokens for head in heads.values()]
    held = sum(filter(None, counts))
    said = dataset.tokens
    whole = dataset.documents is None and not dataset.skip and dataset.deal is None
    if said is None or None in counts or not whole or abs(held - said) * 100 <= _OFF * held:
        return
    report.add(
        "W679",
        f"`{dataset.name}` has {short(held)} tokens, and the spec says {short(said)}",
        dataset.at("tokens"),
        help=f"write `tokens = {short(held)}`: epochs are counted by it",
    )
