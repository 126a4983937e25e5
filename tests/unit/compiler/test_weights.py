"""Models with published weights, as recipes name them and plans hold them."""

import ast
from pathlib import Path

import pytest
from lsp_files import at
from specs import HEAD as PLAIN
from specs import analysed, check, codes, miniature, only, plan, stage

from etude.compiler.plan.difference import difference
from etude.compiler.plan.plan import ExportJob, Plan, TrainJob, WeightsJob
from etude.compiler.program import TrainStage, WeightsStage
from etude.lsp.completion import completion
from etude.lsp.navigation import definition
from etude.runtime.emission.emit import emit

HEAD = """
recipe start { seed = 1 }
model base { layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 320
             rope_theta = 5e5, weights = "base", context = 64 }
tokenizer words { file = "base/tokenizer.json" }
dataset web { sample = python_docs }
dataset chats { sample = python_functions, kind = dialogs }
dataset likes { sample = python_functions, kind = preferences }
dataset asks { sample = python_functions, kind = prompts }
"""
TRAIN = "steps = 10, seq_len = 32, batch = 4 seqs, lr = 1e-4, data = web"
AGAIN = TRAIN.replace("1e-4", "2e-4")
SFT = "steps = 10, seq_len = 32, batch = 4 seqs, lr = 1e-4, data = chats"
PAIRS = "steps = 10, seq_len = 32, batch = 4 pairs, lr = 1e-4, data = likes"
ALL = (
    HEAD
    + f"""
stage more: train {{ model = base, {TRAIN} }}
stage again: train {{ from = base, {AGAIN}, gate seq_len {{ require loss(web) <= 101% of start }} }}
stage sft: sft {{ from = base, {SFT} }}
stage rm: reward {{ from = base, {PAIRS} }}
stage dpo: dpo {{ from = sft, reference = base, {PAIRS} }}
stage soup: average {{ of = [base, sft] }}
stage pick: best {{ of = [base, soup], loss = [web] }}
stage before: evaluate {{ from = base, loss = [web], needle = {{ }} }}
stage drafts: sample {{ from = base, prompts = asks, max_tokens = 8, judge = rm }}
stage quality: score {{ from = base, data = [web] }}
rounds align 2 {{
  stage chat: sft {{ from = previous.chat or base, {SFT} }}
}}
"""
)


def weights(of: Plan) -> WeightsJob:
    return only([job for job in of.jobs if isinstance(job, WeightsJob)])


def jobs(of: Plan, stage: str) -> list[TrainJob]:
    return [job for job in of.jobs if isinstance(job, TrainJob) and job.stage == stage]


def test_every_kind_of_stage_takes_the_weights_of_the_model() -> None:
    found = plan(ALL)
    job = weights(found)
    assert job.source == {"folder": "base"}
    assert (job.model.context, job.model.rope_theta, job.inputs) == (64, 5e5, {})
    for name in ("more", "again", "sft", "rm", "align.1.chat"):
        first = jobs(found, name)[0]
        assert first.inputs["model"] == job.key
        assert (first.optimizer_state, first.model.rope_theta) == ("fresh", 5e5)
    takes = {each.id: set(each.inputs.values()) for each in found.jobs}
    measured = ("heldout.again.start", "heldout.pick.0")
    for name in ("reference.dpo.likes", "soup", "quality.web", "pick", *measured):
        assert job.key in takes[name]
    export = only([j for j in found.jobs if isinstance(j, ExportJob) and j.stage == "base"])
    for name in ("before", "drafts.draws"):
        assert export.key in takes[name]
    assert "base" not in found.outputs
    assert found.stages["base"].kind == "weights"


def test_evaluations_take_the_length_that_the_weights_were_trained_on() -> None:
    job = next(job for job in plan(ALL).jobs if job.id == "before")
    assert [m.seq_len for m in job.measures if m.metric == "loss"] == [64]  # type: ignore[union-attr]
    assert [m.lengths for m in job.measures if m.metric == "needle"] == [[64]]  # type: ignore[union-attr]


def test_a_model_that_no_stage_starts_from_is_read_by_nobody() -> None:
    other = HEAD.replace("weights =", "hub =").replace("context", 'revision = "v1", context')
    found = plan(other + f"stage sft: sft {{ from = base, {SFT} }}")
    assert weights(found).source == {"hub": "base", "revision": "v1"}
    tiny = 'model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320, weights = "x" }\n'
    found = plan(HEAD + tiny + f"stage sft: sft {{ from = base, {SFT} }}")
    assert weights(found).id == "base"


WRONG = {
    "in two places": (HEAD.replace("context", 'hub = "a/b", context'), "E426"),
    "a revision of a folder": (HEAD.replace("context", 'revision = "x", context'), "E426"),
    "a context of nothing": (HEAD.replace('weights = "base", ', ""), "E426"),
    "without a context": (HEAD.replace(", context = 64", ""), "E417"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_weights_have_to_say(what: str) -> None:
    head, code = WRONG[what]
    assert code in codes(head + f"stage more: train {{ model = base, {TRAIN} }}")


STAGES = {
    "last has no value": (f"stage more: train {{ from = base, {TRAIN} }}", "1e-4", "last", "E409"),
    "no rate": (f"stage more: train {{ from = base, {TRAIN} }}", "lr = 1e-4, ", "", "E408"),
    "no batch": (f"stage sft: sft {{ from = base, {SFT} }}", "batch = 4 seqs, ", "", "E408"),
    "both": (f"stage more: train {{ from = base, {TRAIN} }}", "from", "model = base, from", "E404"),
    "one name": (f"stage base: train {{ model = base, {TRAIN} }}", "x", "x", "E427"),
    "no judge": (
        "stage s: sample { from = base, prompts = asks, max_tokens = 8, judge = base }",
        "x",
        "x",
        "E513",
    ),
    "no checkpoint": ("stage c: checkpoint { from = base, after = 50% }", "x", "x", "E454"),
}


@pytest.mark.parametrize("what", STAGES)
def test_what_stages_after_weights_have_to_say(what: str) -> None:
    stage, old, new, code = STAGES[what]
    assert code in codes(HEAD + stage.replace(old, new))


def test_a_model_without_weights_is_nothing_to_go_on_from() -> None:
    bare = HEAD.replace(', weights = "base", context = 64', "")
    error = only(check(bare + f"stage sft: sft {{ from = base, {SFT} }}"))
    assert error.code == "E402"
    assert "the model `base` has no weights to continue from" in error.help


def test_a_first_stage_is_told_which_weights_there_are() -> None:
    error = only(check(HEAD + f"stage sft: sft {{ {SFT} }}"))
    assert (error.code, error.help) == ("E405", "write `from = base`")


def test_other_weights_train_everything_anew_and_are_named() -> None:
    old = plan(ALL)
    new = plan(ALL.replace('weights = "base"', 'hub = "a/b"'))
    found = difference(old, new)
    again = {job.job for job in found.jobs if job.what == "again"}
    assert {"base", "more.1", "dpo.1", "soup"} <= again
    assert "tokenizer.words" not in again


def test_a_longer_stage_than_the_weights_saw_is_warned_of() -> None:
    spec = HEAD.replace("5e5", "1e4").replace("context = 64", "context = 4Ki")
    longer = TRAIN.replace("seq_len = 32", "seq_len = 64Ki")
    assert "W615" in codes(spec + f"stage more: train {{ from = base, {longer} }}")


def test_torchtitan_loads_them_in_its_own_way() -> None:
    written = emit(plan(ALL))
    ast.parse(written)
    assert "initial_load_path=str(Path('base').resolve())," in written
    assert written.count("initial_load_in_hf=True") == 4  # more, again, sft, align.1.chat


def test_a_miniature_has_a_short_training_in_their_place() -> None:
    small = miniature(ALL)
    assert small.miniature
    assert not any(isinstance(job, WeightsJob) for job in small.jobs)
    (first,) = jobs(small, "base")
    assert first.steps >= 64
    assert jobs(small, "more")[0].inputs["model"] == first.key
    assert jobs(small, "more")[0].optimizer_state == "fresh"
    row = only([row for row in small.miniature if row.attribute == "weights"])
    assert (row.block, row.full) == ("model base", "base")
    assert row.miniature == f"random, then trained for {first.steps} steps on python_functions"


def test_a_context_is_shown_of_models_with_weights_alone() -> None:
    assert plan(ALL).values["model.base"]["context"].value == "64"
    assert "context" not in miniature(ALL).values["model.base"]
    assert "context" not in plan(PLAIN + stage()).values["model.tiny"]


def test_a_model_that_stages_continue_from_is_used() -> None:
    found = analysed(ALL).report.ordered()
    assert [each.message for each in found if each.code == "N655"] == []
    only_from = HEAD + f"stage sft: sft {{ from = base, {SFT} }}"
    assert "N655" not in [each.code for each in analysed(only_from).report.ordered()]


def test_published_weights_are_no_stage_that_trains() -> None:
    program = analysed(ALL).program
    assert program
    base = program.stages["base"]
    assert isinstance(base, WeightsStage)
    assert not isinstance(base, TrainStage)
    assert program.trained("soup") is base
    assert (base.last.seq_len, base.longest, list(base.sources)) == (64, 64, [])


@pytest.mark.parametrize("written", ["from = ", "of = [", "reference = "])
def test_editors_offer_models_with_weights_where_stages_are_named(
    written: str, tmp_path: Path
) -> None:
    kind = {"of = [": "average", "reference = ": "dpo"}.get(written, "sft")
    tiny = "model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320 }\n"
    offered = completion(*at(tmp_path, f"{HEAD}{tiny}stage other: {kind} {{\n  {written}¦"))
    labels = [item.label for item in offered]
    assert "base" in labels
    assert "tiny" not in labels


def test_editors_go_from_a_stage_to_the_model_that_it_starts_from(tmp_path: Path) -> None:
    found = definition(*at(tmp_path, HEAD + f"stage sft: sft {{ from = ba¦se, {SFT} }}"))
    assert found
    assert HEAD.splitlines()[found.range.start.line].startswith("model base")


TWO = """model base { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 300, %s, context = 64 }
tokenizer own { %s }
tokenizer other { %s }
"""


@pytest.mark.parametrize(
    ("model", "own", "other", "found"),
    [
        ('weights = "there/w"', 'file = "there/w/tokenizer.json"', "bytes", "own"),
        ('weights = "./w/"', "bytes", 'file = "w/tokenizer.json"', "other"),
        ('hub = "org/w"', 'hub = "org/v"', 'hub = "org/w"', "other"),
        ('weights = "w"', 'file = "wide/tokenizer.json"', "bytes", None),
        ('weights = "w"', 'file = "w/a.json"', 'file = "w/b.json"', None),
    ],
)
def test_of_several_tokenizers_weights_have_the_one_beside_them(
    model: str, own: str, other: str, found: str | None
) -> None:
    text = PLAIN + TWO % (model, own, other) + stage(model="base")
    if found:
        (job,) = [job for job in plan(text).jobs if job.kind == "tokenizer"]
        assert job.id == f"tokenizer.{found}"
        return
    (problem,) = check(text)
    assert problem.code == "E412"
    assert "tokenizer base { file = " in problem.help
