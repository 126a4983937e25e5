"""Lists of sites: documents are kept or dropped according to their host."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import DataError
from .bad_lines import BadLines
from .formats import Row, missing


class Sites:
    """Rules that decide by a field whether a document is kept.

    Args:
        rules: `{"field": "url", "file": "sites.txt", "keep": false}` each. The field holds a URL
            or a host. If `keep` is true, only documents of listed sites are kept; otherwise they
            are dropped. A host belongs to a site if it is the site or a subdomain of it.
        root: the folder that the files' paths are relative to.

    Attributes:
        fields: the fields that a document must have.
        kept, dropped: documents so far.

    Raises:
        DataError: a list cannot be read, is empty, or holds a line that is not a site.
    """

    def __init__(self, rules: Sequence[Mapping[str, Any]], root: Path) -> None:
        self._rules = [
            (rule["field"], load(root / rule["file"]), bool(rule.get("keep"))) for rule in rules
        ]
        self.fields = [field for field, _, _ in self._rules]
        self.kept = self.dropped = 0

    def keeps(self, row: Row, bad: BadLines) -> bool:
        """Whether all rules keep a document; one without a host in its field is a bad line."""
        kept = True
        for field, listed, keep in self._rules:
            if field not in row.fields:
                missing(row, field, bad)
                return False
            value = row.fields[field]
            found = host(value) if isinstance(value, str) else None
            if found is None:
                bad.report(row.place, f"the field `{field}` has no URL or host")
                return False
            kept = kept and any(site in listed for site in _above(found)) == keep
        self.kept += kept
        self.dropped += not kept
        return kept


def load(path: Path) -> frozenset[str]:
    """The sites in a list: one per line; `#` begins a comment.

    Raises: DataError
    """
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(
            f"the list of sites {path} cannot be read: {reason}",
            "name a text file with one site per line",
        ) from None
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        site = line.partition("#")[0].strip().removeprefix("*.")
        if not site:
            continue
        name = host(site)
        if name is None:
            raise DataError(
                f"{path}:{number}: `{site}` is not a site",
                "write one host per line, as in `example.org`; it covers its subdomains too",
            )
        found.add(name)
    if not found:
        raise DataError(f"the list {path} has no site", "write one host per line")
    return frozenset(found)


def host(value: str) -> str | None:
    """The host of a URL, or a host itself, in lower-case ASCII; None if there is none."""
    value = value.strip()
    try:
        name = urlsplit(value if "://" in value else f"//{value}").hostname
        if not name or any(character.isspace() for character in name):
            return None
        name = name.strip(".").lower()
        return name if name.isascii() else name.encode("idna").decode()
    except (ValueError, UnicodeError):
        return None


def _above(name: str) -> Iterator[str]:
    """The host and the domains above it."""
    while name:
        yield name
        name = name.partition(".")[2]
