"""Sample jobs: draws, the best of them as dialogs, and pairs of the best and the worst."""

import json
import os
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ...compiler.as_written import counted
from ...compiler.plan.plan import SampleJob
from .. import stopping
from ..errors import RunError
from ..run_folder.recorder import OnEvent
from ..run_folder.store import disk
from .answers import Answer, Sampler
from .drawing import Generator
from .prompts import Prompt

PROMPTS = 16
"""Prompts that are answered together; after each such chunk, what is drawn is safe."""


def sample(
    job: SampleJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: OnEvent,
    draw: Generator | None = None,
) -> None:
    """Draws answers and writes them into `folder/result`.

    - `draws.jsonl`: every draw, with prompt, draw, seed, text, messages, score and finished.
    - `drafts.jsonl`: the best draws of each prompt, as dialogs, or as `prompt` and `completion`
      where the prompt is plain text.
    - `pairs.jsonl`: of each prompt the best draw as `chosen`, the worst as `rejected`.
    - `summary.json`: counts and mean rewards.

    A draw that was cut off by `max_tokens` is neither kept nor one of a pair, since training would
    teach that an answer ends there; nor is one that says nothing, or that is too long for the
    judge. What a killed job had drawn is
    kept in whole chunks, and the files become the same, byte for byte.

    Args:
        inputs: "model", an export; "prompts", with prompts.jsonl; "judge", an export with a
            reward model's head, where there is one.
        folder: the job's work folder.
        root: the folder of the spec, where a template's path starts.
        on_event: gets an event `sampled` after every chunk.
        draw: what draws; chosen by the machine where it is not given.

    Raises:
        RunError: a model cannot be loaded, the judge is not a reward model, no draw is finished.
        DataError: a prompt is damaged, empty or too long.
        Stopped: the disk does not take the result.
    """
    sampler = Sampler(
        inputs["model"],
        inputs.get("judge"),
        dialog=job.dialog,
        root=root,
        max_tokens=job.max_tokens,
        temperature=job.temperature,
        top_p=job.top_p,
        draw=draw,
    )
    prompts = sampler.prompts(inputs["prompts"] / "prompts.jsonl")
    partial = folder / "draws.partial.jsonl"
    with disk(partial):
        _draw(job, sampler, prompts, partial, on_event)
        _finish(job, prompts, partial, folder, judged="judge" in inputs)


def _draw(
    job: SampleJob, sampler: Sampler, prompts: list[Prompt], partial: Path, on_event: OnEvent
) -> None:
    """Fills the partial file, from the last whole chunk that it holds."""
    done, total, scored = _resume(partial, len(prompts), job.draws)
    with partial.open("a", encoding="utf-8") as file:
        for first in range(done, len(prompts), PROMPTS):
            stopping.check(
                f"`{job.id}` has {first} of {len(prompts)} prompts and continues from there"
            )
            chunk = prompts[first : first + PROMPTS]
            answers = sampler.answer(chunk, first=first, draws=job.draws, seed=job.seed)
            for i, (prompt, drawn) in enumerate(zip(chunk, answers, strict=True)):
                for number, answer in enumerate(drawn):
                    file.write(_json(_line(first + i, number, prompt, answer)))
                    if answer.score is not None:
                        total, scored = total + answer.score, scored + 1
            file.flush()
            os.fsync(file.fileno())
            reached = first + len(chunk)
            on_event(
                {
                    "event": "sampled",
                    "job": job.id,
                    "prompts": reached,
                    "of": len(prompts),
                    "draws": reached * job.draws,
                    "reward": total / scored if scored else None,
                }
            )


def _resume(partial: Path, prompts: int, draws: int) -> tuple[int, float, int]:
    """Cuts the file after its last whole chunk; prompts in it, sum and number of its scores."""
    if not partial.exists():
        return 0, 0.0, 0
    done, end, total, scored = 0, 0, 0.0, 0
    with partial.open("rb") as file:
        while done < prompts:
            size = min(PROMPTS, prompts - done)
            lines = [file.readline() for _ in range(size * draws)]
            if not all(line.endswith(b"\n") for line in lines):
                break
            scores = [json.loads(line)["score"] for line in lines]
            total += sum(score for score in scores if score is not None)
            scored += sum(score is not None for score in scores)
            done, end = done + size, end + sum(map(len, lines))
    os.truncate(partial, end)
    return done, total, scored


def _line(index: int, number: int, prompt: Prompt, answer: Answer) -> dict[str, Any]:
    messages = None if prompt.messages is None else [*prompt.messages, answer.message]
    return {
        "prompt": index,
        "draw": number,
        "seed": answer.seed,
        "text": answer.text,
        "messages": messages,
        "score": answer.score,
        "finished": answer.finished,
    }


def _finish(
    job: SampleJob, prompts: list[Prompt], partial: Path, folder: Path, *, judged: bool
) -> None:
    """Writes the result from all draws, and puts it in place at once."""
    ready = folder / "result.partial"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    tally = _Tally(judged)
    with (
        partial.open(encoding="utf-8") as drawn,
        (ready / "drafts.jsonl").open("w", encoding="utf-8") as drafts,
        (ready / "pairs.jsonl").open("w", encoding="utf-8") as pairs,
    ):
        lines = (json.loads(line) for line in drawn)
        for prompt in prompts:
            draws = list(islice(lines, job.draws))
            ranked = _ranked(draws, judged=judged)
            kept = ranked[: job.keep] if job.keep else ranked
            drafts.writelines(_json(_dialog(prompt, draw)) for draw in kept)
            pair = _pair(prompt, ranked)
            pairs.writelines(_json(each) for each in pair)
            tally.add(draws, kept, len(pair))
    if not tally.kept:
        raise RunError(
            f"none of the {tally.draws} draws of {job.id} is non-empty and ends within "
            f"{counted(job.max_tokens, 'tokens')}, so none can be kept",
            "raise max_tokens, or sample from a model that has learned to end its answers",
        )
    summary = {"prompts": len(prompts), **tally.summary()}
    (ready / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    shutil.copyfile(partial, ready / "draws.jsonl")
    ready.rename(folder / "result")


def _ranked(draws: list[dict[str, Any]], *, judged: bool) -> list[dict[str, Any]]:
    """The draws that say something and end, the best first; ties, and draws without a judge, in
    the order drawn. One that the judge cannot read is left out."""
    whole = [draw for draw in draws if draw["finished"] and draw["text"].strip()]
    if not judged:
        return whole
    read = [draw for draw in whole if draw["score"] is not None]
    return sorted(read, key=lambda draw: (-draw["score"], draw["draw"]))


def _dialog(prompt: Prompt, draw: dict[str, Any]) -> dict[str, Any]:
    if prompt.messages is None:
        return {"prompt": prompt.text, "completion": draw["text"]}
    return {"messages": draw["messages"], **({"tools": prompt.tools} if prompt.tools else {})}


def _pair(prompt: Prompt, ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best draw against the worst, none where the judge sees no difference."""
    if len({draw["text"] for draw in ranked}) < 2:
        return []
    best, worst = ranked[0], ranked[-1]
    if best["score"] is None or best["score"] == worst["score"] or best["text"] == worst["text"]:
        return []
    if prompt.messages is None:
        return [{"prompt": prompt.text, "chosen": best["text"], "rejected": worst["text"]}]
    return [
        {
            "prompt": prompt.messages,
            "chosen": best["messages"][-1:],
            "rejected": worst["messages"][-1:],
            **({"tools": prompt.tools} if prompt.tools else {}),
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
