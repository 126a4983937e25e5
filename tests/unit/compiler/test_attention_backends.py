"""The attention backend of stages: where it goes, what it does not go with, and keys."""

from typing import Any

import pytest
from specs import HEAD, POST_TRAINING, after, check, jobs, miniature, plan, stage

from etude.compiler.plan.plan import Plan
from etude.runtime.emission.emit import emit
from etude.runtime.preflight.kernels import FOURTH, THIRD, kernels

CLIPPED = "muon { qk_clip = 100 }"
LOOSE = "{ debug = { deterministic = false } }"


def pod(gpu: str = "H100 80GB") -> str:
    return f'cluster pod {{ gpus = 4 of "{gpu}" }}\n'


def backend(made: Plan, name: str = "first") -> str:
    return jobs(made, name)[0].torchtitan.get("attention", {}).get("backend", "flex")


def keys(made: Plan) -> dict[str, str]:
    return {job.id: job.key for job in made.jobs}


def test_a_stage_and_those_after_it_have_the_backend_and_the_keys_of_flex() -> None:
    parts = stage(batch="4 seqs", attention="varlen") + after() + after("third", from_="second")
    made = plan(HEAD + pod() + parts)
    assert [backend(made, name) for name in ("first", "second", "third")] == ["varlen"] * 3
    assert keys(made) == keys(plan(HEAD + pod() + parts.replace("varlen", "flex")))
    assert made.stages["second"].values["attention"].value == "varlen"


def test_flex_is_not_written_into_jobs() -> None:
    made = plan(HEAD + pod() + stage(batch="4 seqs", attention="flex"))
    assert "attention" not in jobs(made)[0].torchtitan


def test_a_stage_that_cannot_use_what_it_would_take_over_has_flex() -> None:
    text = POST_TRAINING.replace("batch = 4 seqs, lr", "batch = 4 seqs, attention = varlen, lr")
    text = text.replace("stage first", pod() + "stage first")
    made = plan(text)
    assert backend(made) == "varlen"
    assert backend(made, "align.1.sft") == "varlen"
    assert backend(made, "align.1.rm") == backend(made, "align.1.dpo") == "flex"


def test_context_parallelism_of_a_stage_that_takes_it_over_leaves_flex() -> None:
    more = after(parallel="{ context 2 }", seq_len="512")
    made = plan(HEAD + pod() + stage(batch="4 seqs", attention="varlen") + more)
    assert backend(made, "second") == "flex"


@pytest.mark.parametrize(
    ("gpu", "attributes", "message"),
    [
        ("", {"attention": "flex"}, "needs GPUs, but this stage runs on CPUs"),
        ("A100 80GB", {"attention": "flex_flash"}, "but A100 80GB has 8.0"),
        ("MI300X", {"attention": "flex_flash", "torchtitan": LOOSE}, "but MI300X is none"),
        ("H100 80GB", {"attention": "flex_flash"}, "is not deterministic"),
        ("H100 80GB", {"attention": "varlen", "precision": "fp32"}, "computes in bf16"),
        ("", {"attention": "varlen", "precision": "fp32"}, "needs GPUs"),
        ("H100 80GB", {"attention": "varlen", "optimizer": CLIPPED}, "which `qk_clip` clips"),
        (
            "H100 80GB",
            {"attention": "varlen", "parallel": "{ context 2 }"},
            "`attention = varlen` cannot use",
        ),
    ],
)
def test_what_it_does_not_go_with(gpu: str, attributes: dict[str, str], message: str) -> None:
    text = HEAD + (pod(gpu) if gpu else "") + stage(**{"batch": "4 seqs", **attributes})
    (found,) = [each for each in check(text) if each.severity == "error"]
    assert found.code == ("E519" if "context" in str(attributes) else "E567")
    assert message in found.message


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("{ norm = layer, alibi = true }", "ALiBi"),
        ("{ attention_cap = 50 }", "caps of attention scores"),
    ],
)
def test_models_whose_scores_change_have_flex(parts: str, message: str) -> None:
    head = HEAD.replace("layers = 2", f"family = decoder, parts = {parts}, layers = 2")
    text = head + pod() + stage(batch="4 seqs", attention="varlen")
    (found,) = [each for each in check(text) if each.severity == "error"]
    assert found.code == "E567"
    assert message in found.message


def test_widths_that_flash_attention_does_not_take() -> None:
    head = HEAD.replace("dim = 64, heads = 4", "dim = 48, heads = 4")
    text = head + pod() + stage(batch="4 seqs", attention="varlen")
    (found,) = [each for each in check(text) if each.severity == "error"]
    assert "a multiple of 8, but these have 12" in found.message


def test_stages_of_records_are_refused_where_they_ask_for_varlen() -> None:
    text = POST_TRAINING.replace("    lr = 1e-5", "    lr = 1e-5, attention = varlen")
    text = text.replace("stage first", pod() + "stage first")
    found = [each for each in check(text) if each.severity == "error"]
    assert {each.code for each in found} == {"E567"}
    assert "which a dpo stage does not have" in found[0].message


def test_on_the_processes_of_this_machine_and_in_miniatures_there_is_none() -> None:
    text = HEAD + pod() + stage(batch="4 seqs", attention="varlen")
    for made in (plan(text, ranks=2), miniature(text)):
        assert "attention" not in jobs(made)[0].torchtitan


def test_emitted_jobs_have_it() -> None:
    text = emit(plan(HEAD + pod() + stage(batch="4 seqs", attention="varlen")))
    assert "model=attending(" in text
    assert "'varlen'," in text
    compile(text, "emitted", "exec")
    assert "attending" not in emit(plan(HEAD + pod() + stage(batch="4 seqs")))


@pytest.mark.parametrize(
    ("name", "gpu", "module"),
    [
        ("flex", "H100 80GB", None),
        ("varlen", "A100 80GB", None),
        ("varlen", "H100 80GB", THIRD),
        ("varlen", "B200", FOURTH),
        ("flex_flash", "H100 80GB", FOURTH),
    ],
)
def test_which_package_has_the_kernels(name: str, gpu: str, module: Any) -> None:
    assert kernels(name, gpu) == module
