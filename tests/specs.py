"""Small specs for the tests of the language and the compiler, and what becomes of them."""

from typing import Any

from etude.compiler.driver import Analysis, analyse, compile, compile_miniature
from etude.compiler.passes import SOUND
from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.spec.findings.diagnostics import Diagnostic, Report
from etude.spec.load import loads, reads
from etude.spec.schema.recipe import Recipe

HEAD = """recipe test { seed = 1 }
model tiny { layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300 }
dataset web { sample = python_docs }
dataset math { sample = arithmetic }
"""
POST_TRAINING = (
    HEAD
    + """
dataset human  { sample = python_functions, kind = dialogs }
dataset ranked { sample = python_functions, kind = preferences }
dataset asked  { sample = python_functions, kind = prompts }
dataset labels { files = "{round}.jsonl", kind = preferences, awaited, candidates = drafts }
stage first: train {
  model = tiny, steps = 100, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}
rounds align 2 {
  stage rm: reward {
    from = first, data = ranked[1..round], steps = 10, batch = 4 pairs, lr = 1e-4
    drop similar > 90%
  }
  stage drafts: sample {
    from = previous.chat or first, prompts = asked[round], draws = 4, max_tokens = 8, judge = rm
  }
  stage sft: sft {
    from = first, data = { drafts 60%, human 40% }, steps = 10, lr = 1e-4
  }
  stage dpo: dpo {
    from = sft, data = { labels[round] 50%, drafts.pairs 50% }, steps = 10, batch = 4 pairs
    lr = 1e-5
  }
  stage chat: average { of = [dpo, previous.dpo or dpo] }
}
stage exam: evaluate {
  from = align.chat, judge = align.rm, prompts = asked, max_tokens = 8
  allow W622 "wanted"
}
stage pick: best { of = [align.chat, align.chat[1]], loss = [web] }
"""
)
"""Two rounds of post-training in which people label between the rounds."""
STAGE = {
    "model": "tiny",
    "steps": "100",
    "seq_len": "16",
    "batch": "4 seqs",
    "lr": "1e-3",
    "data": "web",
}


def stage(name: str = "first", body: str = "", **attributes: str | None) -> str:
    """A train stage on new weights of 100 steps × 4 sequences × 16 tokens; `attributes` change
    that (None leaves one out; `from_` is `from`), `body` is added."""
    given = STAGE | attributes
    if attributes.keys() & {"tokens", "epochs"}:
        given["steps"] = attributes.get("steps")
    lines = [f"  {k.rstrip('_')} = {v}" for k, v in given.items() if v is not None]
    return f"stage {name}: train {{\n" + "\n".join(lines) + f"\n{body}\n}}\n"


def after(name: str = "second", body: str = "", **attributes: str | None) -> str:
    """A train stage of 10 steps that continues from the stage above."""
    left_out = dict.fromkeys(STAGE) | {"steps": "10"}
    return stage(name, body, **(left_out | attributes))


def check(text: str) -> list[Diagnostic]:
    """What is found in a spec, by loading and compiling it; without notes, of which small specs
    have many."""
    return [d for d in compiled(text)[1].ordered() if d.severity != "note"]


def analysed(text: str, **options: Any) -> Analysis:
    """What is found in a spec; `options` are those of `analyse`."""
    return analyse(reads(text, name="spec"), **options)


def compiled(text: str, ranks: int | None = None, **options: Any) -> tuple[Plan | None, Report]:
    found = analysed(text, ranks=ranks, **options)
    made = compile(found)
    return made.plan if made else None, found.report


def miniature(text: str) -> Plan:
    """The plan of the miniature of a spec without errors."""
    found = analysed(text, passes=SOUND)
    made = compile_miniature(found)
    assert made, [d.message for d in found.report.ordered()]
    return made.plan


def parsed(text: str) -> Recipe:
    """The recipe of a spec without errors."""
    report = Report()
    recipe = loads(text, report, name="spec")
    assert recipe, [d.message for d in report.ordered()]
    return recipe


def plan(text: str, ranks: int | None = None, **options: Any) -> Plan:
    """The plan of a spec without errors."""
    result, report = compiled(text, ranks, **options)
    assert result, [f"{d.span!r} {d.code} {d.message}" for d in report.ordered()]
    return result


def jobs(of: Plan, name: str = "first") -> list[TrainJob]:
    """The train jobs of a stage, without those that only a failed gate runs."""
    found = [job for job in of.jobs if isinstance(job, TrainJob)]
    return [job for job in found if job.stage == name and not job.extends]


def segments(text: str, name: str = "first") -> list[TrainJob]:
    """The train jobs of a stage of a whole spec's stages; the head is added."""
    return jobs(plan(HEAD + text), name)


def rates(of: list[TrainJob]) -> list[float]:
    """The learning rate of every step."""
    return [
        Timeline.of(job).lr(step)
        for job in of
        for step in range(job.first_step, job.first_step + job.steps)
    ]


def batches(of: list[TrainJob]) -> list[int]:
    """The sequences of every step."""
    return [
        Timeline.of(job).batch(step)
        for job in of
        for step in range(job.first_step, job.first_step + job.steps)
    ]


def codes(text: str) -> list[str]:
    return [d.code for d in check(text)]


def place(diagnostic: Diagnostic) -> tuple[int, int] | None:
    span = diagnostic.span
    return (span.line, span.column) if span else None


def only(found: list[Any]) -> Any:
    """The one element of a list."""
    assert len(found) == 1, found
    return found[0]
