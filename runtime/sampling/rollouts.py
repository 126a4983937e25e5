"""Rollout jobs: the rewards of a model's answers, and what a policy learns from them."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.ids import DataId
from ...compiler.plan.plan import RolloutJob
from ...compiler.schedule.mixture import Mixture
from ..data.dialogs.encode import CONTENT, OTHER
from ..data.drawn import ROLLOUTS
from ..data.records.shards import ADVANTAGES, LEARNED, REWARDS, Record, write_records
from ..data.tokens import tokenizer
from ..disk import disk, move, write, write_by
from ..run_folder.recorder import OnEvent
from ..verification import verified
from .draw_files import SUMMARY, read_draws
from .judging import SCORES
from .prompts import Prompt, Protocol, read, records

LEAST_DEVIATION = 1e-4
"""Added to standard deviations, as TRL does, so that groups of nearly equal rewards stay finite."""


@dataclass(frozen=True)
class Answer:
    """A drawn answer and its rewards, by the names of what scores it; nan where it is unread."""

    source: str
    prompt: Prompt
    draw: dict[str, Any]
    rewards: dict[str, float]


def rollout(
    job: RolloutJob, inputs: Mapping[str, Path], folder: Path, *, root: Path, on_event: OnEvent
) -> None:
    """Writes into `folder/result`, all in the order in which steps learn from them:

    - `rollouts.jsonl`: every answer, with source, prompt, text, tokens, finished, rewards, reward
      (their weighted sum) and advantage.
    - record shards of the form "rollouts": the tokens of each prompt and answer.
    - `advantages.npy` and `rewards.npy`: float32, shape (answers,). With `mask_truncated` also
      `learned.npy`: 0 for each answer that was cut off, else 1.
    - `summary.json`: counts and means.

    Args:
        inputs: "model", the export that wrote the answers; "draws.SOURCE", "prompts.SOURCE" and,
            for a reward stage, "judged.SOURCE.STAGE".
        folder: the job's work folder.
        root: the folder of the spec, which templates and schemas are relative to.
        on_event: gets one event `rollouts`, and a warning if no group teaches anything.

    Raises:
        DataError: the prompts are damaged, or one lacks what a verifier needs.
        Interrupted: asked to stop; the job begins again.
        Stopped: the disk cannot take the result.
    """
    made = tokenizer.load(inputs["model"] / "tokenizer.json")
    protocol = Protocol(job.dialog, made, root)
    sources = {
        role.removeprefix("draws."): _answers(
            job, role.removeprefix("draws."), inputs, protocol, root
        )
        for role in inputs
        if role.startswith("draws.")
    }
    ready = folder / "result.partial"
    with disk(ready):
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        steps = _scored(job, sources)
        # A model may write tokens that its tokenizer does not have.
        vocab = json.loads((inputs["model"] / "config.json").read_text())["vocab_size"]
        summary = _write(job, steps, vocab, ready, _replaced(inputs))
        move(ready, folder / "result")
    on_event({"event": "rollouts", "job": job.id, "stage": job.stage, **summary})
    if summary.get("idle") == 1:
        on_event(
            {
                "event": "warning",
                "message": f"{job.id}: all answers to each prompt have the same reward, "
                f"{summary['reward']:.4g} on average, so nothing can be learned from them",
            }
        )


def _replaced(inputs: Mapping[str, Path]) -> dict[str, int]:
    """With dynamic sampling, the prompts drawn, and those whose answers were all right or wrong."""
    paths = [path / SUMMARY for role, path in inputs.items() if role.startswith("draws.")]
    found = [json.loads(path.read_text()) for path in paths if path.exists()]
    return {
        name: sum(each[of] for each in found)
        for name, of in (("drawn", "drawn"), ("all_right", "right"), ("all_wrong", "wrong"))
        if found
    }


def _answers(
    job: RolloutJob, source: str, inputs: Mapping[str, Path], protocol: Protocol, root: Path
) -> Iterator[Answer]:
    """The answers to the prompts of a source, in the order drawn."""
    path, folder = inputs[f"prompts.{source}"] / "prompts.jsonl", inputs[f"draws.{source}"]
    numbers = list(dict.fromkeys(draw["record"] for draw in read_draws(folder)))
    prompts = dict(zip(numbers, read(path, protocol, context=None, numbers=numbers), strict=True))
    scored = set(next(read_draws(folder), {}).get("scores", ()))
    dataset = DataId.parse(source).name
    others = {name for name, each in job.verify.items() if not each.scores(dataset)}
    verify = {name: of for name, of in job.verify.items() if name not in scored | others}
    wanted = set(numbers)
    asked = {n: record for n, record in enumerate(records(path)) if n in wanted}
    judged = {
        name: iter(np.load(inputs[f"judged.{source}.{name}"] / SCORES).tolist())
        for name in job.rewards.keys() - job.verify.keys()
    }
    answers = ((asked[draw["record"]], draw) for draw in read_draws(folder))
    for _, draw, new in verified(verify, root, answers, f"`{job.id}` begins again"):
        scores = dict.fromkeys(others, 0.0) | new | draw.get("scores", {})
        rewards = {
            name: scores[name] if name in scores else next(judged[name]) for name in job.rewards
        }
        yield Answer(source, prompts[draw["record"]], draw, rewards)


def _scored(
    job: RolloutJob, sources: Mapping[str, Iterator[Answer]]
) -> Iterator[tuple[list[Answer], np.ndarray, np.ndarray]]:
    """For each step its answers, group by group, their rewards and their advantages; float64."""
    ends = np.cumsum([0, *job.prompts]).tolist()
    order = Mixture(
        [(piece.weights, ends[piece.to_step] - ends[piece.from_step]) for piece in job.sources]
    )
    for begin, count in zip(ends, job.prompts, strict=False):
        answers = [
            answer
            for place in range(begin, begin + count)
            for answer in islice(sources[order.locate(place)[0]], job.group)
        ]
        rewards = _rewards(job, answers)
        yield answers, rewards, advantages(rewards, job.group, job.baseline, job.scale)


def _rewards(job: RolloutJob, answers: Sequence[Answer]) -> np.ndarray:
    """The weighted sums of rewards: float64, shape (answers,).

    An answer that a reward model cannot read has the least reward of its group; 0 if none was read.
    """
    total = np.zeros(len(answers))
    for name, weight in job.rewards.items():
        grouped = np.array([answer.rewards[name] for answer in answers]).reshape(-1, job.group)
        unread = np.isnan(grouped)
        least = np.where(unread, np.inf, grouped).min(1, keepdims=True)
        least[np.isinf(least)] = 0
        total += weight * np.where(unread, least, grouped).reshape(-1)
    return total


def advantages(rewards: np.ndarray, group: int, baseline: str, scale: str) -> np.ndarray:
    """How much better each answer is than the others to its prompt.

    With r the rewards of a group of G answers: r − mean(r), or with the baseline "others"
    r − mean of the other G − 1 (RLOO, Ahmadian et al., arXiv:2402.14740, §3.2). Divided by the
    standard deviation (of G − 1 degrees of freedom) of the group (GRPO, Shao et al.,
    arXiv:2402.03300, §4.1.2), of the step's whole batch (Hu et al., arXiv:2501.03262), or not at
    all (Dr. GRPO, Liu et al., arXiv:2503.20783, §3.2).

    Args:
        rewards: float64, shape (answers of a step,), group by group.

    Returns: float64, shape (answers,).
    """
    grouped = rewards.reshape(-1, group)
    found = grouped - grouped.mean(1, keepdims=True)
    if baseline == "others":
        found *= group / (group - 1)
    if scale == "group":
        found /= grouped.std(1, ddof=1, keepdims=True) + LEAST_DEVIATION
    elif scale == "batch":
        found /= rewards.std(ddof=1) + LEAST_DEVIATION
    return found.reshape(-1)


def _write(
    job: RolloutJob,
    steps: Iterator[tuple[list[Answer], np.ndarray, np.ndarray]],
    vocab: int,
    folder: Path,
    replaced: Mapping[str, int],
) -> dict[str, Any]:
    """Writes all files; returns the summary, to which `replaced` is added."""
    tally = _Tally(job)

    def learned(lines: Any) -> Iterator[Record]:
        for step in steps:
            tally.add(*step)
            for answer, reward, advantage in zip(*step, strict=True):
                lines.write(_line(answer, reward, advantage))
                yield _record(answer)

    with (folder / ROLLOUTS).open("w", encoding="utf-8") as lines:
        name = job.stage or job.id
        write_records(
            learned(lines),
            folder,
            form="rollouts",
            vocab=vocab,
            holdout=Fraction(0),
            seed=0,
            name=name,
        )
    files = {ADVANTAGES: tally.advantages, REWARDS: tally.rewards}
    if job.mask_truncated:
        files[LEARNED] = tally.finished
    for file, values in files.items():
        joined = np.concatenate(values).astype(np.float32)
        write_by(folder / file, partial(np.save, arr=joined))
    summary = {**tally.summary(), **replaced}
    write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _line(answer: Answer, reward: float, advantage: float) -> str:
    draw = answer.draw
    named = {name: None if score != score else score for name, score in answer.rewards.items()}
    content = {
        "source": answer.source,
        "prompt": draw["record"],
        "draw": draw["draw"],
        "text": draw["text"],
        "finished": draw["finished"],
        "rewards": named,
        "reward": reward,
        "advantage": advantage,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _record(answer: Answer) -> Record:
    asked = answer.prompt.tokens.astype(np.int64)
    said = np.asarray(answer.draw["tokens"], np.int64)
    parts = np.full(len(asked) + len(said), OTHER, np.uint8)
    parts[len(asked) :] = CONTENT
    return Record(np.concatenate([asked, said]), parts, (len(asked), len(said)))


class _Tally:
    """Counts and sums over the steps of a job."""

    def __init__(self, job: RolloutJob) -> None:
        self._job = job
        self.advantages: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self._named: dict[str, list[float]] = {name: [] for name in job.rewards}
        self._lengths: list[int] = []
        self.finished: list[np.ndarray] = []

    def add(self, answers: Sequence[Answer], rewards: np.ndarray, found: np.ndarray) -> None:
        self.advantages.append(found)
        self.rewards.append(rewards)
        self.finished.append(np.array([answer.draw["finished"] for answer in answers]))
        for answer in answers:
            self._lengths.append(len(answer.draw["tokens"]))
            for name, score in answer.rewards.items():
                self._named[name].append(score)

    def summary(self) -> dict[str, Any]:
        """`idle` is the share of groups whose answers all have the same reward."""
        rewards = np.concatenate(self.rewards)
        grouped = rewards.reshape(-1, self._job.group)
        rewarded = {
            "reward": float(rewards.mean()),
            "rewards": {name: _mean(scores) for name, scores in self._named.items()},
            "idle": float((np.ptp(grouped, axis=1) == 0).mean()),
        }
        return {
            "prompts": len(grouped),
            "answers": len(rewards),
            **(rewarded if self._job.rewards else {}),
            "length": float(np.mean(self._lengths)),
            "finished": float(np.concatenate(self.finished).mean()),
        }


def _mean(scores: Sequence[float]) -> float | None:
    """The mean of what was read; None of nothing."""
    known = [score for score in scores if score == score]
    return sum(known) / len(known) if known else None
