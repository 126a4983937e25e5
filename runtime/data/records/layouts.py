"""Layouts of records in well-known data sets, converted to fields that `records` reads.

ShareGPT's turns of `from` and `value`, and names of questions and answers, are those of many data
sets; `function_call` and `observation` are those of LLaMA-Factory (github.com/hiyouga).

They are recognized by their fields, if the data set's `fields` name none. What is known of them:
Alpaca (github.com/tatsu-lab/stanford_alpaca), HH (arXiv:2204.05862, github.com/anthropics/hh-rlhf),
UltraFeedback (arXiv:2310.01377), HelpSteer2-Preference (arXiv:2410.01257) and HelpSteer3
(arXiv:2505.11475), Math-Shepherd (arXiv:2312.08935), and
KTO's labels as TRL has them (arXiv:2402.01306).
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from ...errors import DataError
from ..dialogs.messages import ROLES
from .fields import COMPLETIONS, PROMPTS

_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_STRENGTHS = (
    ("response1", "response2", "overall_preference"),
    ("response_1", "response_2", "preference_strength"),
)
"""Fields of HelpSteer's pairs: both responses, and how much better the second is."""
_MARK = "ки"
"""What ends a step in Math-Shepherd."""


class Converted(NamedTuple):
    """A record in the form that is read, and the layout that it had, for people."""

    layout: str
    record: dict[str, Any]


def converted(record: Mapping[str, Any], form: str) -> Converted | None:
    """A record of a known layout; None for any other, which is read as it is.

    Args:
        form: "dialogs", "preferences", "ratings" or "solutions".

    Raises: DataError: it has a known layout, and cannot be used.
    """
    if form == "dialogs":
        if any(name in record for name in ("messages", "text")):
            return None
        return _labelled(record) or _sharegpt(record) or _alpaca(record) or _asked(record)
    if form == "ratings":
        return _rated(record)
    if form == "solutions":
        return _math_shepherd(record)
    return _ultrafeedback(record) or _helpsteer(record) or _hh(record) or _sharegpt_pair(record)


def _sharegpt(record: Mapping[str, Any]) -> Converted | None:
    turns = record.get("conversations", record.get("conversation"))
    if not _is_sharegpt(turns):
        return None
    return _with("ShareGPT", record, messages=[_message(turn) for turn in turns])


def _sharegpt_pair(record: Mapping[str, Any]) -> Converted | None:
    """A dialog and two answers to it, as LLaMA-Factory has them."""
    turns, pair = record.get("conversations"), [record.get(n) for n in ("chosen", "rejected")]
    if not _is_sharegpt(turns) or not _is_sharegpt(pair):
        return None
    made = {"prompt": [_message(turn) for turn in turns]}
    made |= {n: [_message(record[n])] for n in ("chosen", "rejected")}
    return _with("ShareGPT", record, **made)


def _rated(record: Mapping[str, Any]) -> Converted | None:
    """A dialog, or a question and its answer, with a label; `kto_tag` is LLaMA-Factory's name."""
    rated = next((record[name] for name in ("label", "kto_tag") if name in record), None)
    if rated is None:
        return None
    if found := _sharegpt(record) or _alpaca(record) or _asked(record):
        return Converted(f"{found.layout}, with labels", {**found.record, "label": rated})
    if "label" in record:
        return None
    return Converted("KTO, with `kto_tag`", {**record, "label": rated})


def _is_sharegpt(turns: Any) -> TypeGuard[list[Mapping[str, Any]]]:
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, Mapping) and {"from", "value"} <= turn.keys() for turn in turns)
    )


def _message(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A message in place of a turn; a tool call is JSON with `name` and `arguments`.

    Raises: DataError: it is not.
    """
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    said, value = turn["from"], turn["value"]
    if said != "function_call":
        return {**rest, "role": ROLES.get(said, said) if isinstance(said, str) else said} | {
            "content": value
        }
    try:
        calls = json.loads(value)
    except (TypeError, ValueError):
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls):
        raise DataError("a turn of `function_call` is not JSON with `name` and `arguments`")
    made = [{"type": "function", "function": call} for call in calls]
    return {**rest, "role": "assistant", "content": "", "tool_calls": made}


def _asked(record: Mapping[str, Any]) -> Converted | None:
    """A question and its answer, under names that many data sets have."""
    if any(name in record for name in ("prompt", "completion", "chosen", "input")):
        return None
    question = next((name for name in PROMPTS if isinstance(record.get(name), str)), None)
    answer = next((name for name in COMPLETIONS if isinstance(record.get(name), str)), None)
    if question is None or answer is None:
        return None
    messages = [
        {"role": "user", "content": record[question]},
        {"role": "assistant", "content": record[answer]},
    ]
    return _with(f"{question} and {answer}", record, messages=messages)


def _labelled(record: Mapping[str, Any]) -> Converted | None:
    """A completion with KTO's label: one that is wanted is learned."""
    label = record.get("label")
    if not isinstance(label, bool) or "prompt" not in record or "completion" not in record:
        return None
    if label:
        return Converted("KTO, completions that are wanted", dict(record))
    raise DataError(
        "`label` is false: the completion is not wanted, and sft would teach it",
        "allow such records to be skipped with `bad_lines`, remove them, or let a kto stage learn "
        "both: `kind = ratings` in the dataset",
    )


def _math_shepherd(record: Mapping[str, Any]) -> Converted | None:
    """A question and the steps of its answer, each ended by a mark in whose place `label` has + or
    -, as the data set of arXiv:2312.08935 has them."""
    text, marked = record.get("input"), record.get("label")
    if not isinstance(text, str) or not isinstance(marked, str) or _MARK not in text:
        return None
    labels: list[bool] = []
    place = 0
    *steps, _ = text.split(_MARK)
    for number, step in enumerate(steps, 1):
        place += len(step)
        if marked[place : place + 1] not in ("+", "-"):
            raise DataError(f"`label` has neither + nor - behind step {number} of `input`")
        labels.append(marked[place] == "+")
        place += 1
    asked, begin, first = steps[0].partition("Step 1:")
    if not begin:
        raise DataError("`input` has no `Step 1:` that ends the question")
    said = [each.strip() for each in (begin + first, *steps[1:])]
    question = [{"role": "user", "content": asked.strip()}]
    return _with("Math-Shepherd", record, prompt=question, completions=said, labels=labels)


def _alpaca(record: Mapping[str, Any]) -> Converted | None:
    asked, more, answer = (record.get(name) for name in ("instruction", "input", "output"))
    standard = any(name in record for name in ("prompt", "completion"))
    if standard or not (isinstance(asked, str) and isinstance(answer, str)):
        return None
    if more is not None and not isinstance(more, str):
        return None
    question = "\n\n".join(text for text in (asked, more) if text and text.strip())
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return _with("Alpaca", record, messages=messages)


def _ultrafeedback(record: Mapping[str, Any]) -> Converted | None:
    """The best answer against the worst, by their overall scores."""
    asked, answers = record.get("instruction"), record.get("completions")
    if "chosen" in record or not isinstance(asked, str) or not isinstance(answers, list):
        return None
    scored = [
        (each["overall_score"], each["response"])
        for each in answers
        if isinstance(each, Mapping)
        and isinstance(each.get("overall_score"), int | float)
        and isinstance(each.get("response"), str)
    ]
    if len(scored) < 2:
        raise DataError("fewer than two of `completions` have a `response` and an `overall_score`")
    best, worst = (pick(scored, key=lambda one: one[0]) for pick in (max, min))
    if best[0] == worst[0]:
        raise DataError(f"all `completions` have the same `overall_score`, {best[0]}")
    margin = best[0] - worst[0]
    return _with("UltraFeedback", record, **_pair(asked, best[1], worst[1]), margin=margin)


def _helpsteer(record: Mapping[str, Any]) -> Converted | None:
    for one, other, strength in _STRENGTHS:
        margin = record.get(strength)
        both = [record.get(name) for name in (one, other)]
        if not isinstance(margin, int | float) or not all(isinstance(t, str) for t in both):
            continue
        if not margin:
            raise DataError(f"`{strength}` is 0: neither response is better")
        worse, better = both if margin > 0 else both[::-1]
        asked = record.get("context", record.get("prompt"))
        return _with("HelpSteer", record, **_pair(asked, better, worse), margin=abs(margin))
    return None


def _hh(record: Mapping[str, Any]) -> Converted | None:
    texts = [record.get(name) for name in ("chosen", "rejected")]
    if "prompt" in record or not all(isinstance(t, str) and _TURN.match(t) for t in texts):
        return None
    chosen, rejected = (_turns(str(text)) for text in texts)
    return _with("HH", record, chosen=chosen, rejected=rejected)


def _turns(text: str) -> list[dict[str, str]]:
    """The messages of a dialog with turns of Human and Assistant."""
    _, *pieces = _TURN.split(text)
    return [
        {"role": _SPEAKERS[speaker], "content": said.strip()}
        for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _pair(asked: Any, better: Any, worse: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    answers = ([{"role": "assistant", "content": text}] for text in (better, worse))
    return {"prompt": question, **dict(zip(("chosen", "rejected"), answers, strict=True))}


def _with(layout: str, record: Mapping[str, Any], **changes: Any) -> Converted:
    """The record with fields of the form that is read; its system prompt and tools stay."""
    kept = {name: record[name] for name in ("system", "tools") if record.get(name)}
    return Converted(layout, {**kept, **changes})
