"""The verifiers that stages name."""

from collections.abc import Iterable

from ...spec.source import Span
from ..resolve.scope import Scope


def check_verifiers(names: Iterable[str], scope: Scope, span: Span | None) -> None:
    """Reports verifiers that a stage names twice, or that are not declared."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            scope.error("E213", f"`{name}` is named twice", span, "write it once")
        elif scope.known(name, "verifier", scope.recipe.verifiers, span):
            seen.add(name)
