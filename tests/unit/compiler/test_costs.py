"""The cost model: formulas that are computed as they are shown, against what was published."""

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, check, jobs, plan, stage

from etude.compiler.costs.estimate import FORMULAS, MEMORY_PARTS, TIME_PARTS, Setting, estimate
from etude.compiler.costs.formulas import ACCOUNT, FITTED, SYMBOLS, TOTALS
from etude.compiler.costs.hardware import GIB, GPUS, gpu
from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import (
    active_parameters,
    parameters,
    published,
    weights,
)
from etude.compiler.values import Resources

ROOT = Path(__file__).parents[3]
MODEL = runpy.run_path(str(ROOT / "benchmarks" / "cost_model.py"))
H100 = (
    'model big { family = llama3, size = "8B" }\ncluster h { nodes = 2, gpus = 8 of "H100" %s }\n'
)


def setting(size: str = "8B", gpus: int = 64, **changes: Any) -> Setting:
    degrees: dict[str, Any] = {
        "tensor": 1,
        "context": 1,
        "pipeline": 1,
        "interleave": 1,
        "replicate": 1,
        "expert": 1,
    }
    degrees |= {n: changes.pop(n) for n in [*changes] if n in degrees}
    rest = math.prod(degrees.values()) // degrees["expert"] // degrees["interleave"]
    model = published(changes.pop("family", "llama3"), size).knowing(8192)
    values: dict[str, Any] = {
        "seq_len": 8192,
        "micro_batch": 1,
        "sequences": gpus,
        "recompute": "full",
        "gpus_per_node": 8,
        "gpu": GPUS["H100 80GB"],
    } | changes
    resources = Resources(world_size=gpus, device="H100 80GB", shard=gpus // rest, **degrees)
    return Setting(model=model, resources=resources, **values)


def test_memory_and_time_of_what_was_held_out_are_near_what_was_measured() -> None:
    found = MODEL["medians"]()
    assert found["memory", False] < 0.10
    assert found["time", False] < 0.08
    errors = [abs(MODEL["error"](row)) for row in MODEL["rows"]() if not row.is_memory]
    assert sum(error < 0.15 for error in errors) > 0.75 * len(errors)


def test_every_source_has_constants_that_were_fitted_without_it() -> None:
    assert set(MODEL["unseen"]()) == set(MODEL["by_source"]())
    for constants in MODEL["unseen"]().values():
        assert set(constants) == {name for name in FITTED if name.startswith("e_")}


def test_gradients_that_are_reduced_once_a_step_are_kept_whole() -> None:
    usual, once = (estimate(setting(sequences=256, once=of)) for of in (False, True))
    assert once.values["data_all"] < usual.values["data_all"]
    whole = 4 * usual.values["N"]
    assert once.memory["buffers"] - usual.memory["buffers"] == pytest.approx(whole)


def test_a_loss_that_asks_about_places_makes_few_logits_and_no_sum_of_gradients() -> None:
    usual = estimate(setting(recompute="none"))
    changes: dict[str, Any] = {"recompute": "none", "asked": True, "plain_loss": True}
    asked = estimate(setting(**changes, chunks=8192 / 2048))
    assert asked.memory["logits"] == pytest.approx(12 * 2048 * 128_256)
    likely = estimate(setting(**changes, chunks=8192 / 2048, likely=True))
    assert likely.memory["logits"] == pytest.approx(20 * 2048 * 128_256)
    (scores, whole) = (estimate(setting(**changes, chunks=of)) for of in (8192 / 2048, 1))
    assert scores.values["head_part"] - whole.values["head_part"] == 2 * 128_256 * 4096
    assert asked.values["hidden"] == usual.values["hidden"] - 4 * 8192 * 4096
    assert asked.values["head"] == usual.values["head"] - 4 * 128_256 * 4096


def test_small_micro_batches_are_slower() -> None:
    speeds = [
        estimate(setting(micro_batch=each, sequences=64 * 8)).tokens_per_second
        for each in (1, 2, 4, 8)
    ]
    assert speeds == sorted(speeds)
    assert speeds[0] < 0.97 * speeds[-1]


def test_weights_that_stay_gathered_take_memory_and_save_a_gather() -> None:
    usual, never = (estimate(setting(reshard=how)) for how in ("default", "never"))
    assert never.memory["buffers"] > usual.memory["buffers"]
    assert never.values["data_all"] < usual.values["data_all"]
    piped, always = (estimate(setting(pipeline=4, reshard=how)) for how in ("default", "always"))
    assert always.memory["buffers"] < piped.memory["buffers"]
    assert estimate(setting(reshard="always")) == usual
    assert estimate(setting(pipeline=4, reshard="never")) == piped


def test_muon_keeps_one_moment_of_the_matrices_and_makes_updates_orthogonal() -> None:
    adamw, muon = (estimate(setting(muon=steps)) for steps in (0, 5))
    layers = adamw.values["N"] - 2 * 128256 * 4096
    assert adamw.memory["optimizer"] - muon.memory["optimizer"] == pytest.approx(4 * layers / 64)
    narrow, wide = 4 * 1024**2 * 4096 + 2 * 1024**3, 4 * 4096**3 + 2 * 4096**3
    feed_forward = 4 * 4096**2 * 14336 + 2 * 4096**3
    assert muon.values["z_d"] == 5 * (2 * wide + 2 * narrow + 3 * feed_forward)
    assert muon.time["update"] > adamw.time["update"]
    latents = estimate(setting("16B-A3B", family="deepseek_v3", muon=5))
    assert latents.values["z_e"] > 64 * 5 * 3 * 4 * 1408**2 * 2048


def test_adafactor_keeps_rows_and_columns_and_reads_more_often() -> None:
    adamw, adafactor = (estimate(setting(adafactor=of)) for of in (False, True))
    attention = 2 * (4096 + 4096) + 2 * (1024 + 4096)
    layer = attention + 3 * (14336 + 4096) + 2 * 4096
    ends = 2 * (128256 + 4096)
    assert adafactor.memory["optimizer"] == pytest.approx(4 * (32 * layer + ends), rel=1e-3)
    assert adafactor.memory["optimizer"] < 0.02 * adamw.memory["optimizer"]
    assert adafactor.time["update"] == pytest.approx(60 / 28 * adamw.time["update"])
    alone, placed = (
        estimate(setting("16B-A3B", family="deepseek_v3", adafactor=True, expert=of)).values
        for of in (1, 8)
    )
    experts = 26 * 64 * 3 * (1408 + 2048)
    assert alone["factors"] - placed["factors"] == pytest.approx(experts * 7 / 8)


def test_lion_keeps_one_moment_and_reads_more_often() -> None:
    adamw, lion = (estimate(setting(lion=of)) for of in (False, True))
    assert lion.memory["optimizer"] == pytest.approx(adamw.memory["optimizer"] / 2)
    assert lion.time["update"] == pytest.approx(52 / 28 * adamw.time["update"])


def test_the_page_shows_the_formulas_and_predictions_of_the_code() -> None:
    text = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    assert MODEL["page"](text) == text, "run: python -m benchmarks.cost_model --docs"


def test_the_rows_of_memory_are_fitted_and_held_out_by_the_rule() -> None:
    of = [row for row in MODEL["rows"]() if row.is_memory]
    assert [row.fitted for row in of] == [n % 2 == 0 for n in range(len(of))]


SIZES = [(family, size) for family, of in FAMILIES.items() for size in of.sizes]


@pytest.mark.parametrize(("family", "size"), SIZES)
def test_parameters_by_formula_are_those_of_the_architecture(family: str, size: str) -> None:
    found = estimate(setting(size, family=family))
    shape = published(family, size)
    active = found.values["N_active"] + shape.vocab * shape.dim * (1 if shape.tied else 2)
    assert active + weights(shape).final_norm == active_parameters(shape)
    layers = found.values["N"] - found.values["N_in"] - found.values["N_out"]
    table = shape.vocab * shape.dim * (1 if shape.tied else 2)
    assert layers + table + weights(shape).final_norm == parameters(shape)


def test_every_symbol_of_a_formula_is_explained() -> None:
    known = {*SYMBOLS, *TOTALS, *FITTED, *FORMULAS, *ACCOUNT, "max", "min"}
    for formula in [*FORMULAS.values(), *ACCOUNT.values()]:
        assert set(compile(formula.text, "", "eval").co_names) <= known, formula.text


def test_the_parts_add_up() -> None:
    found = estimate(setting("70B", 256, tensor=8, pipeline=4, sequences=64))
    assert sum(found.memory.values()) == pytest.approx(found.memory_total)
    assert sum(found.time.values()) == pytest.approx(found.seconds)
    assert tuple(found.memory) == MEMORY_PARTS
    assert tuple(found.time) == TIME_PARTS


def test_what_ought_to_save_memory_does_and_costs_time() -> None:
    none, some, full = (estimate(setting(recompute=how)) for how in ("none", "selective", "full"))
    assert none.memory_total > some.memory_total > full.memory_total
    assert none.seconds < some.seconds < full.seconds
    small, large = (estimate(setting(gpus=n)) for n in (8, 64))
    assert small.memory["optimizer"] == 8 * large.memory["optimizer"]
    assert estimate(setting(tensor=8)).memory_total < full.memory_total
    short, long = (
        estimate(setting("70B", 256, tensor=8, pipeline=4, sequences=n)) for n in (32, 256)
    )
    assert short.mfu < long.mfu  # the bubble of a pipeline counts for less


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("H100 80GB", "H100 80GB"),
        ("H100", "H100 80GB"),
        ("NVIDIA H100 SXM5 80GB", "H100 80GB"),
        ("h200", "H200"),
        ("H200 141GB", "H200"),
        ("A100", "A100 80GB"),
        ("AMD Instinct MI300X", "MI300X"),
        ("V100", None),
        ("cpu", None),
        ("", None),
    ],
)
def test_gpus_are_known_by_any_usual_name(name: str, known: str | None) -> None:
    found = gpu(name)
    assert (found.name if found else None) == known


def test_a_plan_has_estimates_and_their_totals() -> None:
    text = HEAD + H100 % ", price = 2.5" + stage(model="big", seq_len="8192", batch="32 seqs")
    found = plan(text)
    (job,) = jobs(found)
    cost = job.cost
    assert cost.memory
    assert set(cost.memory) == set(MEMORY_PARTS)
    assert cost.gpu_memory == 80 * GIB
    assert cost.price == pytest.approx(2.5 * (cost.gpu_hours or 0), rel=1e-3)
    assert cost.seconds == pytest.approx(
        sum((cost.step_seconds or {}).values()) * job.steps, rel=1e-2
    )
    assert found.totals
    assert found.totals.gpu_hours == pytest.approx((cost.seconds or 0) / 3600 * 16, rel=1e-3)
    assert found.totals.tokens == job.tokens


def test_what_is_not_known_is_null_and_prices_change_no_key() -> None:
    on_cpu = plan(HEAD + stage())
    assert jobs(on_cpu)[0].cost.memory is None
    assert on_cpu.totals
    assert on_cpu.totals.gpu_hours is None
    text = HEAD + H100 + stage(model="big", seq_len="8192", batch="32 seqs")
    dear, free = plan(text % ", price = 9"), plan(text % "")
    assert [job.key for job in dear.jobs] == [job.key for job in free.jobs]
    assert free.totals
    assert free.totals.price is None


def test_the_help_for_too_much_memory_is_a_change_that_fits() -> None:
    text = (
        HEAD
        + H100 % ""
        + stage(model="big", seq_len="8192", batch="128 seqs", parallel="{ micro_batch 8 }")
    )
    (found,) = [d for d in check(text) if d.code == "W661"]
    assert "recompute = full" in found.help or "micro_batch" in found.help
    fixed = text.replace("micro_batch 8", "micro_batch 1").replace(
        "data = web\n", "data = web\n  recompute = full\n"
    )
    assert not [d for d in check(fixed) if d.code in ("W661", "W662")]
