"""Sample jobs: the best draws as dialogs, and pairs of the best and the worst."""

import json
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.as_written import counted
from ...compiler.plan.plan import SampleJob
from ..errors import RunError
from ..run_folder.recorder import OnEvent
from ..run_folder.store import disk
from .draws import DRAWS, read_draws
from .judging import SCORES
from .prompts import records


def sample(job: SampleJob, inputs: Mapping[str, Path], folder: Path, *, on_event: OnEvent) -> None:
    """Writes into `folder/result`:

    - `draws.jsonl`: every draw, with prompt, draw, seed, text, messages, finished and score.
    - `drafts.jsonl`: the best draws of each prompt, as dialogs, or as `prompt` and `completion` if
      the prompt is plain text.
    - `pairs.jsonl`: for each prompt the best draw as `chosen`, the worst as `rejected`.
    - `summary.json`: counts and mean rewards.

    A draw that was cut off by `max_tokens` is neither kept nor part of a pair, since training would
    teach that an answer ends there. The same holds for a draw that says nothing, or is too long for
    the judge.

    Args:
        inputs: "draws", the result of a draw job; "prompts", with prompts.jsonl; "judged", the
            result of a judge job, if there is a judge.
        folder: the job's work folder.
        on_event: gets one event `sampled`.

    Raises:
        RunError: no draw is finished.
        DataError: the prompts are damaged.
        Stopped: the disk cannot take the result.
    """
    judged = "judged" in inputs
    scores = _scores(inputs["judged"] / SCORES) if judged else None
    ready = folder / "result.partial"
    with disk(ready):
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        tally = _Tally(judged)
        prompts = 0
        with (
            (ready / DRAWS).open("w", encoding="utf-8") as every,
            (ready / "drafts.jsonl").open("w", encoding="utf-8") as drafts,
            (ready / "pairs.jsonl").open("w", encoding="utf-8") as pairs,
        ):
            draws = _scored(inputs["draws"], scores)
            for prompt in records(inputs["prompts"] / "prompts.jsonl"):
                of = list(islice(draws, job.draws))
                ranked = _ranked(of, judged=judged)
                kept = ranked[: job.keep] if job.keep else ranked
                pair = _pair(prompt, ranked)
                every.writelines(map(_json, of))
                drafts.writelines(_json(_dialog(prompt, each)) for each in kept)
                pairs.writelines(map(_json, pair))
                tally.add(of, kept, len(pair))
                prompts += 1
        if not tally.kept:
            raise RunError(
                f"none of the {tally.draws} draws of {job.id} is non-empty and ends within "
                f"{counted(job.max_tokens, 'tokens')}, so none can be kept",
                "raise max_tokens, or sample from a model that has learned to end its answers",
            )
        summary = {"prompts": prompts, **tally.summary()}
        (ready / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        ready.rename(folder / "result")
    told = {"prompts": prompts, "of": prompts, "draws": tally.draws, "reward": summary["reward"]}
    on_event({"event": "sampled", "job": job.id, **told})


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


def _pair(prompt: dict[str, Any], ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best draw against the worst; [] if the judge sees no difference."""
    if len({draw["text"] for draw in ranked}) < 2:
        return []
    best, worst = ranked[0], ranked[-1]
    if best["score"] is None or best["score"] == worst["score"] or best["text"] == worst["text"]:
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
    def __init__(self, judged: bool) -> None:
        self.judged = judged
        self.draws = self.finished = self.kept = self.pairs = self.unfinished_prompts = 0
        self.rewards: list[float] = []
        self.kept_rewards: list[float] = []

    def add(self, draws: list[dict[str, Any]], kept: list[dict[str, Any]], pairs: int) -> None:
        finished = sum(draw["finished"] for draw in draws)
        self.draws += len(draws)
        self.finished += finished
        self.unfinished_prompts += not finished
        self.kept += len(kept)
        self.pairs += pairs
        self.rewards += [draw["score"] for draw in draws if draw["score"] is not None]
        self.kept_rewards += [draw["score"] for draw in kept if draw["score"] is not None]

    def summary(self) -> dict[str, Any]:
        return {
            "draws": self.draws,
            "reward": _mean(self.rewards),
            "unjudged": self.draws - len(self.rewards) if self.judged else None,
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
