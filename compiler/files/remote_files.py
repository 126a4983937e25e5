"""Data in object stores: whether a spec's patterns match anything.

Only commands about a spec look there; editors, which answer after every keystroke, do not.
"""

from ...spec.findings.allows import silence
from ...spec.findings.diagnostics import Report
from ..program import Scheduled
from .urls import in_store


def remote_files(program: Scheduled, report: Report) -> None:
    """Adds findings about a spec's data in object stores.

    If this machine lacks the package, the credentials or the network, that is a note: another
    machine may have them, just as it may have files that are not here.
    """
    known: dict[str, tuple[str, str, str] | None] = {}
    for name, dataset in program.recipe.datasets.items():
        for pattern in dataset.files or ():
            if not in_store(pattern) or "{round}" in pattern or dataset.awaited:
                continue
            if pattern not in known:
                known[pattern] = _look(pattern)
            if found := known[pattern]:
                code, text, help = found
                report.add(
                    code, f"{text}, of the data set `{name}`", dataset.at("files"), help=help
                )
                break
    silence(report, program.recipe.allowances, whole=False)


def _look(pattern: str) -> tuple[str, str, str] | None:
    """A code, a message and a way out; None if something matches."""
    from .store_access import matching
    from .store_errors import why

    # Every file system has its own errors, so all of them are caught here.
    try:
        found = matching(pattern, patient=False)
    except Exception as error:
        reason = why(pattern, error)
        if reason.kind == "missing":
            return "N657", f"there is no object `{pattern}`", reason.help
        code = "E552" if reason.kind in ("bucket", "refused") else "N657"
        return code, f"`{pattern}` cannot be looked at: {reason.text}", reason.help
    if found:
        return None
    return "N657", f"no object matches `{pattern}`", "correct the pattern, or put the data there"
