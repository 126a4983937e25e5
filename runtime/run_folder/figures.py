"""A step's and an evaluation's figures, as trackers get them."""

from collections.abc import Mapping
from typing import Any

KNOWN = ("event", "job", "stage", "step", "tokens", "mixture", "sources")
"""Fields of a step that a tracker gets in another form; it gets all other figures unchanged."""


def losses(event: Mapping[str, Any]) -> dict[str, float]:
    """An evaluation's figures for a tracker: losses, and what comes with those of preferences."""
    found = {}
    for name, score in event["scores"].items():
        found[f"evaluation/{name}"] = score["score"]
        source = name.partition("(")[2]
        for more in ("accuracy", "margin"):
            if more in score:
                found[f"evaluation/{more}({source}"] = score[more]
    return found


def figures(event: Mapping[str, Any]) -> dict[str, float]:
    """A step's figures for a tracker, with what each source has given so far, and its share of the
    mixture."""
    shares = sum(event["mixture"].values())
    return (
        {name: figure for name, figure in event.items() if name not in KNOWN}
        | {f"tokens/{name}": drawn for name, drawn in event["sources"].items()}
        | {f"share/{name}": weight / shares for name, weight in event["mixture"].items()}
    )


def scored(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of an evaluation or gate, with standard errors where there are some."""
    found = {name: score["score"] for name, score in scores.items()}
    errors = {f"{name} stderr": score.get("stderr") for name, score in scores.items()}
    return found | {name: error for name, error in errors.items() if error is not None}
