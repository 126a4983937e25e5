"""Sample jobs: the right or best draws as dialogs, and pairs of the best and the worst."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.as_written import counted
from ...compiler.plan.plan import SampleJob
from ..data.drawn import DRAWS
from ..disk import disk, move, write
from ..errors import RunError
from ..run_folder.recorder import OnEvent
from ..verification import verified
from .draw_files import read_draws
from .judging import SCORES
from .prompts import records


def sample(
    job: SampleJob, inputs: Mapping[str, Path], folder: Path, *, root: Path, on_event: OnEvent
) -> None:
    """Writes into `folder/result`:

    - `draws.jsonl`: every draw, with prompt, draw, seed, text, messages, score and finished, and
      with the scores of verifiers, if there are any.
    - `drafts.jsonl`: the best draws of each prompt, as dialogs, or as `prompt` and `completion` if
      the prompt is plain text. With verifiers only right ones.
    - `pairs.jsonl`: for each prompt the best draw as `chosen`, the worst as `rejected`; with
      verifiers the best right one and the worst wrong one.
    - `summary.json`: counts and mean rewards, and the shares that are right.

    A draw that was cut off by `max_tokens` is neither kept nor part of a pair, since training would
    teach that an answer ends there. The same holds for a draw that says nothing, or is too long for
    the judge.

    Args:
        inputs: "draws", the result of a draw job; "prompts", with prompts.jsonl; "judged", the
            result of a judge job, if there is a judge.
        folder: the job's work folder.
        root: the folder of the spec, which schemas of verifiers are relative to.
        on_event: gets one event `sampled`.

    Raises:
        RunError: no draw is finished, or none is right; a verifier cannot be used.
        DataError: the prompts are damaged.
        Interrupted: asked to stop.
        Stopped: the disk cannot take the result.
    """
    ready = folder / "result.partial"
    with disk(ready):
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        tally = _keep(job, inputs, ready, root)
        if not tally.kept:
            raise _nothing_kept(job, tally)
        summary = tally.summary()
        write(ready / "summary.json", json.dumps(summary, indent=1) + "\n")
        move(ready, folder / "result")
    told = {name: summary[name] for name in ("draws", "reward", "right") if name in summary}
    about = {"job": job.id, "prompts": tally.prompts, "of": tally.prompts}
    on_event({"event": "sampled", **about, **told})


def _keep(job: SampleJob, inputs: Mapping[str, Path], ready: Path, root: Path) -> "_Tally":
    """Writes the draws, and those that are kept and paired; returns their counts."""
    judged = "judged" in inputs
    scores = _scores(inputs["judged"] / SCORES) if judged else None
    tally = _Tally(judged, tuple(job.verify))
    with (
        (ready / DRAWS).open("w", encoding="utf-8") as every,
        (ready / "drafts.jsonl").open("w", encoding="utf-8") as drafts,
        (ready / "pairs.jsonl").open("w", encoding="utf-8") as pairs,
    ):
        draws = _scored(inputs["draws"], scores)
        prompts = records(inputs["prompts"] / "prompts.jsonl")
        answers = ((prompt, draw) for prompt in prompts for draw in islice(draws, job.draws))
        what = f"`{job.id}` starts over, and loses no draw"
        each = verified(job.verify, root, answers, what)
        while some := list(islice(each, job.draws)):
            prompt = some[0][0]
            of = [{**draw, "scores": found} if found else draw for _, draw, found in some]
            ranked = _ranked(of, judged=judged)
            right = [draw for draw in ranked if is_right(draw)]
            kept = right[: job.keep] if job.keep else right
            pair = _pair(prompt, ranked, right, verified=bool(job.verify))
            every.writelines(map(_json, of))
            drafts.writelines(_json(_dialog(prompt, each)) for each in kept)
            pairs.writelines(map(_json, pair))
            tally.add(of, kept, len(pair))
    return tally


def _nothing_kept(job: SampleJob, tally: "_Tally") -> RunError:
    if tally.usable:
        who = " and ".join(f"`{name}`" for name in job.verify)
        return RunError(
            f"none of the {tally.draws} draws of {job.id} is right by {who}, so none can be kept",
            "raise draws, take easier prompts, or train the model on answers first",
        )
    return RunError(
        f"none of the {tally.draws} draws of {job.id} is non-empty and ends within "
        f"{counted(job.max_tokens, 'tokens')}, so none can be kept",
        "raise max_tokens, or sample from a model that has learned to end its answers",
    )


def is_right(draw: Mapping[str, Any]) -> bool:
    """Whether all verifiers of a draw find it right; without any, every draw is."""
    return all(score >= 1 for score in draw.get("scores", {}).values())


def _scores(path: Path) -> Iterator[float | None]:
    """The judge's scores in the order of the draws; None if it could not read one."""
    return (None if score != score else score for score in np.load(path).tolist())


def _scored(folder: Path, scores: Iterator[float | None] | None) -> Iterator[dict[str, Any]]:
    for draw in read_draws(folder):
        score = next(scores) if scores is not None else None
        finished = draw.pop("finished")
        yield {**draw, "score": score, "finished": finished}


def _ranked(draws: list[dict[str, Any]], *, judged: bool) -> list[dict[str, Any]]:
    """The draws that say something and end, best first; ties, and draws without a judge, in the
    order drawn. Draws that the judge cannot read are left out."""
    whole = [draw for draw in draws if draw["finished"] and draw["text"].strip()]
    if not judged:
        return whole
    read = [draw for draw in whole if draw["score"] is not None]
    return sorted(read, key=lambda draw: (-draw["score"], draw["draw"]))


def _dialog(prompt: dict[str, Any], draw: dict[str, Any]) -> dict[str, Any]:
    if prompt.get("messages") is None:
        return {"prompt": prompt["prompt"], "completion": draw["text"]}
    return {"messages": draw["messages"], **_tools(prompt)}


def _tools(prompt: dict[str, Any]) -> dict[str, Any]:
    return {"tools": prompt["tools"]} if prompt.get("tools") else {}


def _pair(
    prompt: dict[str, Any],
    ranked: list[dict[str, Any]],
    right: list[dict[str, Any]],
    *,
    verified: bool,
) -> list[dict[str, Any]]:
    """The best draw against the worst, with verifiers the best right one against the worst wrong
    one; [] if the judge or the verifiers see no difference."""
    if verified:
        wrong = [draw for draw in ranked if not is_right(draw)]
        if not right or not wrong:
            return []
        best, worst = right[0], wrong[-1]
    else:
        if len({draw["text"] for draw in ranked}) < 2:
            return []
        best, worst = ranked[0], ranked[-1]
        if best["score"] is None or best["score"] == worst["score"]:
            return []
    if best["text"] == worst["text"]:
        return []
    if prompt.get("messages") is None:
        return [{"prompt": prompt["prompt"], "chosen": best["text"], "rejected": worst["text"]}]
    return [
        {
            "prompt": prompt["messages"],
            "chosen": best["messages"][-1:],
            "rejected": worst["messages"][-1:],
            **_tools(prompt),
        }
    ]


class _Tally:
    def __init__(self, judged: bool, verifiers: Sequence[str]) -> None:
        self.judged = judged
        self.verified: dict[str, list[float]] = {name: [] for name in verifiers}
        self.prompts = self.draws = self.finished = self.usable = self.kept = self.pairs = 0
        self.right = self.unfinished_prompts = self.prompts_without_right = 0
        self.rewards: list[float] = []
        self.kept_rewards: list[float] = []

    def add(self, draws: list[dict[str, Any]], kept: list[dict[str, Any]], pairs: int) -> None:
        finished = sum(draw["finished"] for draw in draws)
        self.prompts += 1
        self.draws += len(draws)
        self.finished += finished
        self.usable += sum(draw["finished"] and bool(draw["text"].strip()) for draw in draws)
        self.unfinished_prompts += not finished
        right = sum(map(is_right, draws))
        self.right += right
        self.prompts_without_right += not right
        for name, scores in self.verified.items():
            scores += [draw["scores"][name] for draw in draws]
        self.kept += len(kept)
        self.pairs += pairs
        self.rewards += [draw["score"] for draw in draws if draw["score"] is not None]
        self.kept_rewards += [draw["score"] for draw in kept if draw["score"] is not None]

    def summary(self) -> dict[str, Any]:
        verified = {
            "right": self.right / self.draws,
            "verified": {name: _mean(scores) for name, scores in self.verified.items()},
            "prompts_without_right": self.prompts_without_right,
        }
        return {
            "prompts": self.prompts,
            "draws": self.draws,
            "reward": _mean(self.rewards),
            "unjudged": self.draws - len(self.rewards) if self.judged else None,
            **(verified if self.verified else {}),
            "kept": self.kept,
            "kept_reward": _mean(self.kept_rewards),
            "pairs": self.pairs,
            "finished": self.finished / self.draws,
            "prompts_without_finished": self.unfinished_prompts,
        }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
