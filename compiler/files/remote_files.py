"""Data in object stores: whether there is something that a spec's patterns match.

Only commands that are asked about a spec look there, not editors, which answer after every key.
"""

from ...spec.findings.allows import silence
from ...spec.findings.diagnostics import Report
from ..program import Scheduled
from .urls import in_store


def remote_files(program: Scheduled, report: Report) -> None:
    """Adds what stores say of the data that a spec reads from them.

    What this machine has no package, no credentials or no network for is a note: another may have
    them, as it may have files that are not here.
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
    """A code, a message and a way out; None where something matches."""
    from .store_access import matching
    from .store_errors import why

    # Every file system has errors of its own, so that all of them are caught here.
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
