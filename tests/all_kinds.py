"""Tiny recipes with stages of every kind, their data, and what a run has made."""

import hashlib
import json
from pathlib import Path

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "owl", "pig", "ram", "yak"]
SPEC = """
recipe all_kinds { seed = 5 }
model tiny {
  family = qwen3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64
  experts = { count = 4, active = 2, ffn = 32, dense = 1, balance = 0.01 }
}
tokenizer words { train = { on [corpus], vocab 280 } }
dataset corpus  { sample = arithmetic, documents = 200, holdout = 5% }
dataset sifted  { sample = arithmetic, documents = 100, keep 50% where quality.loss > 4.0 }
dataset human   { files = "dialogs.jsonl", kind = dialogs }
dataset asked   { files = "prompts.jsonl", kind = prompts }
dataset labeled { files = "preferences.jsonl", kind = preferences }

stage pretrain: train {
  model = tiny, data = corpus, steps = 12, seq_len = 64, batch = 4 seqs, lr = 3e-3
  checkpoint every 4 steps
  average = polyak every 2 steps over 50%
}
stage quality: score { from = pretrain, data = [sifted] }
stage more: train {
  from = pretrain, data = sifted, steps = 6, seq_len = 64 for 3 steps then 128, lr = 1e-3
  gate seq_len {
    require loss(corpus) <= 3.70
    require needle >= 0%
    needle = { lengths = [128], depths = 1, samples = 1 }
    otherwise extend 3 steps at most 4 times
  }
}
# Until it answers with one word and ends its turn.
stage start: sft { from = more, data = human, steps = 60, batch = 8 seqs, lr = 3e-3 }
stage rm: reward { data = labeled, steps = 6, batch = 4 pairs, lr = 1e-3, from = start }
stage other: reward { data = labeled, steps = 3, batch = 4 pairs, lr = 1e-3, from = start }
stage both: ensemble { of = [rm, other], combine = minimum }
stage drafts: sample { from = start, prompts = asked, draws = 2, judge = both, max_tokens = 24 }
stage sft: sft { from = start, data = drafts, steps = 6, batch = 2 seqs, lr = 1e-3 }
stage dpo: dpo {
  data = labeled, nll = 0.2, mask = formatting, steps = 6, batch = 4 pairs, lr = 1e-4
}
verifier word { kind = regex, pattern = "^[a-z]{3}$" }
stage rl: grpo {
  from = dpo, data = asked, steps = 2, batch = 2 prompts, group = 4, max_tokens = 24
  reward = { word 1, rm 0.1 }, kl = 0.1, lr = 1e-4
}
stage soup: average { of = [sft, dpo] }
stage pick: best { of = [sft, dpo, rl, soup], loss = [corpus] }
stage ranking: evaluate { from = rm, accuracy = [labeled] }
stage report: evaluate {
  from = pick, loss = [corpus], needle = { lengths = [128], depths = 1, samples = 1 }
}
"""
LEARNERS = """
recipe learners { seed = 5 }
model tiny { layers = 1, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [corpus], vocab 280 } }
dataset corpus  { sample = arithmetic, documents = 200, holdout = 5% }
dataset human   { files = "dialogs.jsonl", kind = dialogs, holdout = 20% }
dataset asked   { files = "prompts.jsonl", kind = prompts }
dataset labeled { files = "preferences.jsonl", kind = preferences, holdout = 20% }
dataset rated   { files = "ratings.jsonl", kind = ratings }
dataset checked { files = "solutions.jsonl", kind = solutions, holdout = 20% }

stage pretrain: train {
  model = tiny, data = corpus, steps = 40, seq_len = 64, batch = 4 seqs, lr = 3e-3
  spikes = { do = rollback, above = 1.43, back = 4, at_most = 40 }
}
stage more: train {
  from = pretrain, data = corpus, steps = 12, seq_len = 64, batch = 4 seqs, lr = 3e-3
  ema = 0.7, spikes = { do = nothing }
}
# Until it answers with one word and ends its turn.
stage start: sft {
  from = more, data = human, steps = 60, batch = 8 dialogs, lr = 3e-3
  evaluate = { every = 20 steps, loss = [human, corpus], by = human, keep = best }
  drop_last = true
}
stage dpo: dpo {
  data = labeled, steps = 6, batch = 4 pairs, lr = 1e-4
  evaluate = { every = 2 steps, loss = [labeled], patience = 2 }
}
stage kto: kto { from = start, data = rated, steps = 4, batch = 8 ratings, lr = 1e-4 }
stage prm: prm {
  from = start, data = checked, steps = 6, batch = 8 solutions, lr = 1e-4
  evaluate = { every = 3 steps, loss = [checked] }
}
# About half of the words.
verifier early { kind = regex, pattern = "^[a-g][a-z]{2}$" }
stage rl: grpo {
  from = start, data = asked, steps = 4, batch = 2 prompts, group = 4, max_tokens = 24
  reward = { early 1, prm 0.1 }, dynamic_sampling = { most = 3 }, refresh = 2 steps
  reference_refresh = 2 steps, kl = 0.1, lr = 1e-4
}
stage student: distill {
  from = start, teacher = rl, data = human, steps = 4, batch = 8 dialogs, lr = 1e-4
  on_policy = 50%, prompts = asked, max_tokens = 24, refresh = 2 steps
}
"""
"""Ways to learn that `SPEC` has not: to go back at spikes, to keep the best checkpoint or a moving
average, and to learn from ratings, from prompts chosen by their answers, or from a teacher."""
UPDATES = """
recipe updates { seed = 5 }
model hybrid {
  family = decoder, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64
  parts = {
    qk_norm = head, gate = true, rotary = 0.25, linear_skips = 2
    linear_heads = 4, linear_key_heads = 2, linear_key_dim = 8, linear_value_dim = 8
  }
}
model further {
  family = deepseek_v3, layers = 2, dim = 32, heads = 4, ffn = 64, mtp = 1
  experts = { count = 4, active = 2, ffn = 32, shared = 1, dense = 1, balance = 0.01 }
  latent = { queries = 0, keys = 16, rotary = 8, plain = 8, values = 8 }
}
tokenizer words { train = { on [corpus], vocab 280 } }
dataset corpus { sample = arithmetic, documents = 200, holdout = 5% }
dataset human  { files = "dialogs.jsonl", kind = dialogs }
dataset asked  { files = "prompts.jsonl", kind = prompts }

stage gated: train {
  model = hybrid, data = corpus, steps = 10, seq_len = 64 for 5 steps then 128, batch = 4 seqs
  lr = 1e-3, optimizer = lion { weight_decay = 0.5 }, checkpoint every 3 steps
}
stage routed: train {
  model = further, data = corpus, steps = 10, seq_len = 64, batch = 4 seqs, lr = 1e-3
  mtp_loss = 0.3, router_z_loss = 0.001, sequence_balance_loss = 0.01, checkpoint every 3 steps
}
stage factored: train {
  from = gated, data = corpus, steps = 6, seq_len = 64, batch = 4 seqs, lr = 1e-3
  optimizer = adafactor
}
stage orthogonal: train {
  from = routed, data = corpus, steps = 6, seq_len = 64, batch = 4 seqs, lr = 1e-3
  optimizer = muon { qk_clip = 0.5 }, clip = 1 -> 0.1 linear
}
# Until it answers with one word and ends its turn.
stage start: sft {
  from = orthogonal, data = human, steps = 60, batch = 8 dialogs, lr = 3e-3, optimizer = adamw
}
stage small: sft {
  from = start, data = human, steps = 6, batch = 8 dialogs, lr = 1e-3
  adapter = lora { rank = 4 }, optimizer = adamw
}
verifier early { kind = regex, pattern = "^[a-g][a-z]{2}$" }
stage rl: grpo {
  from = start, data = asked, steps = 5, batch = 2 prompts, group = 4, max_tokens = 24
  reward = { early 1 }, lr = 1e-4
}
stage report: evaluate { from = small, loss = [corpus] }
stage other: evaluate { from = factored, loss = [corpus] }
"""
"""Models and updates that the others have not: linear attention, a module of further tokens, losses
of routers, Lion, Adafactor, Muon with QK-clip, an adapter, and a policy of several turns."""
EVALUATED = "evaluations.jsonl"
KINDS = {"tokenizer", "dataset", "filter", "train", "score", "reference", "heldout", "export"} | {
    *("draw", "judge", "ensemble", "sample", "average", "best", "evaluate", "gate", "rollout"),
    "likelihood",
}
"""Of jobs, all but that of published weights."""


def write(folder: Path, spec: str = SPEC) -> None:
    """Writes a spec and its data: a person says a word, and is answered with it."""
    (folder / "spec.etude").write_text(spec)
    asked = [[{"role": "user", "content": f"Say {w} {n}"}] for n in range(3) for w in WORDS]
    said = [[{"role": "assistant", "content": w}] for _ in range(3) for w in WORDS]
    wrong = [[{"role": "assistant", "content": f"not {w}"}] for _ in range(3) for w in WORDS]
    files = {
        "prompts": [{"prompt": prompt} for prompt in asked],
        "dialogs": [{"messages": p + s} for p, s in zip(asked, said, strict=True)],
        "preferences": [
            {"prompt": p, "chosen": s, "rejected": w}
            for p, s, w in zip(asked, said, wrong, strict=True)
        ],
        "ratings": [
            {"prompt": p, "completion": c, "label": good}
            for p, s, w in zip(asked, said, wrong, strict=True)
            for c, good in ((s, True), (w, False))
        ],
        "solutions": [
            {"prompt": p, "completions": ["It is", text[0]["content"]], "labels": [True, good]}
            for p, s, w in zip(asked, said, wrong, strict=True)
            for text, good in ((s, True), (w, False))
        ],
    }
    for name, records in files.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text)


def results(run: Path) -> dict[str, dict[str, str]]:
    """The checksums of all that the jobs of a run have made: weights, exports, answers, scores.

    Without what differs between two undisturbed runs: speeds, and names that DCP invents.
    Evaluations inside a stage count without their times.
    """
    found: dict[str, dict[str, str]] = {}
    for path in run.glob("artifacts/*/manifest.json"):
        manifest = json.loads(path.read_bytes())
        found[manifest["key"]] = {
            name: file["sha256"]
            for name, file in manifest["files"].items()
            if Path(name).name not in ("metrics.jsonl", ".metadata", "checksums.json")
        }
        if (evaluated := path.with_name(EVALUATED)).exists():
            lines = [json.loads(line) for line in evaluated.read_text().splitlines()]
            text = json.dumps(
                [{n: of for n, of in each.items() if n != "seconds"} for each in lines]
            )
            found[manifest["key"]][EVALUATED] = hashlib.sha256(text.encode()).hexdigest()
    return found
