"""Run folders whose results are written by hand, for reports."""

import json
from pathlib import Path
from typing import Any

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan
from etude.runtime.run_folder.store import Store
from etude.spec.load import reads

SPEC = """
recipe post { title = "Post-training", seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [docs], vocab 300 } }
dialog chat { protocol = llama3 }
dataset docs { sample = python_docs, documents = 60 docs, holdout = 5% }
dataset likes { files = "likes.jsonl", kind = preferences, holdout = 10% }
dataset asks { files = "asks.jsonl", kind = prompts }
stage pretrain: train {
  model = tiny, steps = 12, seq_len = 64, batch = 4 seqs, lr = 1e-3, data = docs
}
rounds align 2 {
  stage rm: reward {
    from = pretrain, dialog = chat, data = likes
    steps = 2, batch = 2 pairs, lr = 1e-4, seq_len = 64
  }
  stage drafts: sample {
    from = pretrain, dialog = chat, prompts = asks, draws = 2, max_tokens = 8, judge = rm
  }
  stage dpo: dpo {
    from = pretrain, dialog = chat, data = likes
    steps = 2, batch = 2 pairs, lr = 1e-4, seq_len = 64
  }
  stage after: evaluate { from = dpo, loss = [docs], judge = rm, prompts = asks, max_tokens = 8 }
  stage ranks: evaluate { from = rm, accuracy = [likes] }
}
stage pick: best { of = [align.dpo, pretrain], loss = [docs] }
"""


class Run:
    """A run folder, and jobs that finish in it."""

    def __init__(self, folder: Path, spec: str = SPEC) -> None:
        self.folder = folder
        made = compile(analyse(reads(spec)))
        assert made
        self.plan: Plan = made.plan
        self.store = Store(folder)
        self.store.create()
        (folder / "plan.json").write_text(self.plan.to_json())

    def finish(self, job: str, content: dict[str, Any], *, key: str = "", plan: str = "") -> None:
        """Publishes a result of which `content` are files, and their text or JSON."""
        planned = next(each.key for each in self.plan.jobs if each.id == job)
        key = key or f"{job}-key"
        result = self.store.work(key) / "result"
        result.mkdir(parents=True)
        for name, value in content.items():
            (result / name).write_text(value if isinstance(value, str) else json.dumps(value))
        self.store.publish(key, result, job)
        self.store.record(job, key, "finished", {"plan": plan or planned})

    def train(self, job: str, steps: list[dict[str, Any]]) -> None:
        lines = [
            json.dumps({"job": job, "step": n, "tokens": 256 * (n + 1), **step})
            for n, step in enumerate(steps)
        ]
        (self.folder / "metrics" / f"{job}.jsonl").write_text("".join(f"{x}\n" for x in lines))
        self.finish(job, {})


def fill(run: Run) -> None:
    run.train("pretrain.1", [{"loss": float(n)} for n in range(12)])
    for number in (1, 2):
        ranked = [
            {"loss": 0.5, "accuracy": 0.5, "margin": 0.1},
            {"loss": 0.3, "accuracy": 1.0, "margin": 0.3},
        ]
        run.train(f"align.{number}.rm.1", ranked)
        summary = {
            "prompts": 3,
            "draws": 6,
            "reward": number / 4,
            "unjudged": 0,
            "kept": 3,
            "kept_reward": 0.75,
            "pairs": 2,
            "finished": 0.5,
            "prompts_without_finished": 0,
        }
        run.finish(f"align.{number}.drafts", {"summary.json": summary})
        scores = {
            "loss(docs)": {"score": 2.5 - number},
            f"reward(align.{number}.rm)": {"score": 0.125},
        }
        run.finish(f"align.{number}.after", {"scores.json": scores})
    run.finish("align.2.ranks", {"scores.json": {"accuracy": {"score": 0.75, "pairs": 8}}})
    run.finish(
        "pick",
        {
            "verdict.json": {
                "measure": "loss(docs)",
                "winner": "pretrain",
                "index": 1,
                "score": 2.25,
                "scores": [
                    {"stage": "align.2.dpo", "score": 2.75},
                    {"stage": "pretrain", "score": 2.25},
                ],
            }
        },
    )


def answered(run: Run, job: str, answers: int, text: str = "an answer") -> None:
    """Answers of a sample job, one to each prompt, whose rewards are the prompts' numbers."""
    prompts = "".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(answers))
    run.finish("dataset.asks", {"prompts.jsonl": prompts})
    draws = "".join(
        json.dumps({"prompt": n, "draw": 0, "text": f"{text} {n}", "score": n, "finished": n > 0})
        + "\n"
        for n in range(answers)
    )
    run.finish(job, {"draws.jsonl": draws, "summary.json": {"prompts": answers, "reward": 1.5}})
