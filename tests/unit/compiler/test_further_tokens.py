"""Multi-token prediction: which stages train its modules, with what weight, and at what cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, after, check, compiled, jobs, miniature, only, plan, segments, stage
from weights_folders import write_folder

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import (
    active_parameters,
    complete,
    flops_per_token,
    further_parameters,
    parameters,
    published,
)
from etude.compiler.families.config_json import written
from etude.compiler.plan.plan import ExportJob, TrainJob, WeightsJob
from etude.compiler.schedule.timeline import Timeline
from etude.runtime.emission.emit import emit
from etude.spec.record import replace

SHAPE = (
    "family = deepseek_v3, layers = 4, dim = 64, heads = 4, ffn = 128, vocab = 300, "
    "latent = { queries = 0, keys = 32, rotary = 8, plain = 16, values = 16 }, "
    "experts = { count = 4, active = 2, ffn = 32, dense = 1 }"
)
MODEL = f"model deep {{ {SHAPE}, mtp = 1 }}\n"
PLAIN = f"model deep {{ {SHAPE} }}\n"
GPUS = 'cluster gpus { nodes = 1, gpus = 8 of "H100 80GB" }\n'
CHATS = 'dataset chats { kind = dialogs, files = "chats.jsonl" }\n'
SFT = "stage chat: sft { steps = 10, lr = 1e-5, data = chats, batch = 8 seqs }\n"


def deep(**attributes: Any) -> str:
    return stage(model="deep", **attributes)


def trained(text: str, name: str) -> TrainJob:
    return only(jobs(plan(text), name))


def weights(job: TrainJob) -> list[float]:
    """The weight of the loss at every step."""
    timeline = Timeline.of(job)
    steps = range(job.first_step, job.first_step + job.steps)
    return [timeline.settings(step)["mtp_loss"] for step in steps]


def test_a_stage_trains_the_modules_with_the_usual_weight_or_its_own() -> None:
    job = only(segments(MODEL + deep()))
    assert job.model.mtp == 1
    assert weights(job) == [0.3] * 100
    changing = only(segments(MODEL + deep(mtp_loss="0.3 until 60% then 0.1")))
    assert weights(changing) == [0.3] * 60 + [0.1] * 40
    assert changing.key != job.key
    assert only(segments(MODEL + deep(mtp_loss="0.3"))).key == job.key


def test_a_model_without_modules_is_planned_as_before() -> None:
    job = only(segments(PLAIN + deep()))
    assert job.schedule.settings == {}
    assert "mtp" not in job.model.as_dict()
    assert "mtp" not in job.cost.model_dump_json()
    assert only(segments(MODEL + deep(mtp_loss="0"))).model == job.model


def test_stages_behind_go_on_with_the_weight_that_the_one_before_ended_with() -> None:
    text = HEAD + MODEL + deep(mtp_loss="0.3 -> 0.1") + after() + after("third", mtp_loss="0.2")
    second, third = trained(text, "second"), trained(text, "third")
    assert weights(second) == pytest.approx([0.1] * 10)
    assert weights(third) == [0.2] * 10
    assert second.optimizer_state == "carry"


@pytest.mark.parametrize(
    "without", [after("chat", mtp_loss="0"), CHATS + SFT, after("chat", adapter="lora")]
)
def test_other_stages_leave_the_modules_out_for_all_behind_them(without: str) -> None:
    text = HEAD + MODEL + deep() + without + after("behind", from_="chat")
    for name in ("chat", "behind"):
        job = trained(text, name)
        assert job.model.mtp == 0
        assert job.schedule.mtp_loss is None
        assert job.cost.mtp_parameters == 0
    found = check(text + after("again", from_="behind", mtp_loss="0.1"))
    assert [each.code for each in found] == ["E468"]
    assert "mtp_loss = 0" in (found[0].help or "")


def test_the_result_is_exported_with_the_modules_that_it_has() -> None:
    made = plan(HEAD + MODEL + deep(export="fp32") + after(mtp_loss="0", export="fp32"))
    exports = [job for job in made.jobs if isinstance(job, ExportJob)]
    assert {job.stage: job.model.mtp for job in exports} == {"first": 1, "second": 0}


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        (PLAIN + deep(mtp_loss="0.1"), "E468", "0.1"),
        (MODEL.replace("mtp = 1", "mtp = 8") + deep(seq_len="8"), "E468", "8"),
        (MODEL.replace("mtp = 1", "mtp = 9") + deep(), "E208", "9"),
        (GPUS + MODEL + deep(parallel="{ pipeline 2 }"), "E488", "{ pipeline 2 }"),
        (
            GPUS + MODEL.replace("mtp = 1", "mtp = 2") + deep(parallel="{ tensor 2 }"),
            "E488",
            "{ tensor 2 }",
        ),
        (GPUS + MODEL + deep(parallel="{ context 2 }", seq_len="512"), "E488", "{ context 2 }"),
    ],
)
def test_what_is_refused(text: str, code: str, place: str) -> None:
    text = HEAD + text
    found = only(check(text))
    assert found.code == code
    assert found.span
    assert text[found.span.start : found.span.end] == place
    assert found.help or code == "E208"


def test_a_family_without_modules_says_so() -> None:
    found = only(check(HEAD.replace("vocab = ", "mtp = 1, vocab = ", 1) + stage()))
    assert found.code == "E419"
    assert "GLM-4.5" in (found.help or "")


def test_a_decoder_as_glm_has_them() -> None:
    experts = "{ count = 4, active = 2, ffn = 32, shared = 1, score = sigmoid }"
    shape = f"layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 300, experts = {experts}"
    model = f"model deep {{ family = decoder, {shape}, mtp = 1, parts = {{ rotary = 0.5 }} }}\n"
    job = only(segments(model + deep()))
    assert job.model.mtp == 1
    assert job.cost.mtp_parameters > 0
    other = model.replace("rotary = 0.5", "norms = after")
    assert [each.code for each in check(HEAD + other + deep())] == ["E419"]


def test_a_pipeline_is_fine_where_the_modules_are_left_out() -> None:
    text = HEAD + GPUS + MODEL + deep(parallel="{ pipeline 2 }", mtp_loss="0")
    assert not [each for each in check(text) if each.code.startswith("E")]


def test_auto_passes_over_what_torchtitan_lacks() -> None:
    found = segments(GPUS + MODEL + deep(parallel="auto", batch="8 seqs"))
    assert {(job.resources.pipeline, job.resources.context) for job in found} == {(1, 1)}


def test_the_modules_of_deepseek_v3_have_its_published_size() -> None:
    """11.5B, besides the shared embedding and output of 0.9B each (deepseek-ai/DeepSeek-V3,
    README_WEIGHTS.md); the matrix of 7168 × 14,336 is not among them."""
    model = replace(published("deepseek_v3", "671B"), mtp=1)
    assert further_parameters(model) - 2 * 7168**2 == pytest.approx(11.5e9, rel=0.001)
    assert parameters(model) == parameters(model.main)
    assert active_parameters(model) == active_parameters(model.main)


def test_further_tokens_cost_a_layer_a_matrix_and_the_output() -> None:
    shape = {"layers": 2, "dim": 8, "heads": 2, "ffn": 16, "vocab": 32, "mtp": 2}
    latent = {"queries": 0, "keys": 4, "rotary": 2, "plain": 2, "values": 4}
    experts = {"count": 4, "active": 2, "ffn": 4, "dense": 2}
    dense = complete("deepseek_v3", None, shape | {"latent": latent, "experts": experts})
    longer = complete(
        "deepseek_v3",
        None,
        shape | {"layers": 4, "mtp": 0, "latent": latent, "experts": experts | {"dense": 4}},
    )
    two_layers = parameters(longer) - parameters(dense)
    own = 2 * (2 * 8 * 8 + 3 * 8)
    mixed = complete(
        "deepseek_v3", None, shape | {"latent": latent, "experts": experts | {"dense": 1}}
    )
    assert further_parameters(dense) == own + two_layers
    assert flops_per_token(dense) == 6 * (active_parameters(longer) + own + 2 * 32 * 8)
    assert further_parameters(mixed) > further_parameters(dense)


def test_memory_and_time_count_them_in() -> None:
    with_modules = only(segments(GPUS + MODEL + deep(seq_len="512", batch="8 seqs"))).cost
    without = only(segments(GPUS + PLAIN + deep(seq_len="512", batch="8 seqs"))).cost
    assert with_modules.mtp_parameters > 0
    assert with_modules.flops > without.flops
    assert with_modules.memory
    assert without.memory
    # Weights and moments of FSDP over eight ranks, in bytes.
    more = with_modules.mtp_parameters / 8
    for part, each in (("parameters", 4), ("optimizer", 8)):
        found = with_modules.memory[part] - without.memory[part]
        assert found == pytest.approx(each * more, rel=1e-6)
    assert with_modules.seconds
    assert without.seconds
    assert with_modules.seconds > without.seconds


def test_a_claim_about_their_size_is_compared() -> None:
    size = only(segments(MODEL + deep())).cost.mtp_parameters
    claim = 'expect {{ mtp_parameters = {} cite "here" }}\n'
    assert not check(HEAD + MODEL + deep() + claim.format(size))
    assert only(check(HEAD + MODEL + deep() + claim.format(size + 1))).code == "E462"


def test_a_miniature_keeps_them() -> None:
    made = miniature(HEAD + MODEL + deep(mtp_loss="0.3 until 60% then 0.1"))
    for job in jobs(made, "first"):
        assert job.model.mtp == 1
        assert {0.3, 0.1} >= set(weights(job))


def test_torchtitan_alone_has_the_loss_with_one_weight() -> None:
    text = emit(plan(HEAD + MODEL + deep(mtp_loss="0.3 until 60% then 0.1")))
    assert "loss=MTPLoss.Config(" in text
    assert "mtp_scale=0.3, global_vocab_size=300" in text
    assert "one mtp_loss, the largest" in text
    constant = emit(plan(HEAD + MODEL + deep()))
    assert "the largest" not in constant
    lacking = emit(plan(HEAD + MODEL + deep(z_loss="1e-4")))
    assert "left out: torchtitan's loss of further tokens has no z_loss" in lacking


@pytest.mark.parametrize(("there", "asked", "wrong"), [(1, 1, 0), (1, 0, 0), (0, 1, 1), (1, 2, 1)])
def test_modules_are_read_as_far_as_the_files_have_them(
    there: int, asked: int, wrong: int, tmp_path: Path
) -> None:
    shape = replace(only(segments(MODEL + deep())).model, mtp=there)
    config = written(shape, {}) | FAMILIES["deepseek_v3"].config_json(shape)
    assert config["num_nextn_predict_layers"] == there
    (write_folder(tmp_path / "base") / "config.json").write_text(
        json.dumps({**config, "tie_word_embeddings": False})
    )
    model = f'model deep {{ {SHAPE}, mtp = {asked}, weights = "base", context = 16 }}\n'
    result, report = compiled(HEAD + model + deep(), root=tmp_path)
    errors = [each for each in report.ordered() if each.severity == "error"]
    assert [each.code for each in errors] == ["E542"] * wrong
    if result:
        read, trained = (
            next(job for job in result.jobs if isinstance(job, kind))
            for kind in (WeightsJob, TrainJob)
        )
        assert read.model.mtp == trained.model.mtp == asked
