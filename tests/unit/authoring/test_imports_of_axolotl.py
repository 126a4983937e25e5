"""axolotl's configurations as specs: numbers, what is open, what is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from importing import BASE, changed, config, data_of, filled, found, imported, opened
from specs import batches, jobs, only, plan, rates

from etude.authoring.draft import Base
from etude.authoring.tree import ConfigError
from etude.compiler.plan.plan import Kto, Plan, Prm


def stage_after(name: str, text: str | None = None, **options: Any) -> tuple[str, Plan]:
    """The imported spec after a base, and its plan."""
    base = Base("base.etude", "base", frozenset({"web", "tiny", "base"}))
    sizes = dict.fromkeys(data_of(name), 1000000)
    spec = imported(name, text, base=base, **({"sizes": sizes} | options)).text
    return spec, plan(BASE + filled(spec.replace('use "base.etude"', "")))


@pytest.mark.parametrize(
    ("name", "stage", "gpus", "batch"),
    [
        ("axolotl_sft.yaml", "sft", 8, 1 * 8 * 8),
        ("axolotl_liger_fsdp.yaml", "sft", 2, 2 * 4 * 2),
        ("axolotl_dpo_lora.yaml", "dpo", 4, 2 * 4 * 4),
        ("axolotl_reward.yaml", "reward", 1, 2 * 4),
        ("axolotl_pretrain.yaml", "pretrain", 16, 1 * 8 * 16),
    ],
)
def test_axolotls_batch_is_micro_times_accumulation_times_gpus(
    name: str, stage: str, gpus: int, batch: int
) -> None:
    result = jobs(stage_after(name, gpus=gpus)[1], stage)
    assert set(batches(result)) == {batch}


STEPS = """base_model: Qwen/Qwen2.5-0.5B
process_reward_model: true
datasets:
  - path: trl-lib/math_shepherd
    type: stepwise_supervised
  - path: trl-lib/prm800k
    type: stepwise_supervised
sequence_len: 2048
micro_batch_size: 8
num_epochs: 1
learning_rate: 0.0002
"""
"""As axolotl's examples/qwen2/prm.yaml."""


def test_steps_of_answers() -> None:
    sizes = {"math_shepherd": 12800, "prm800k": 12800}
    made = imported("axolotl_prm.yaml", STEPS, gpus=8, sizes=sizes)
    (job,) = jobs(plan(filled(made.text)), "prm")
    assert job.objective == Prm()
    assert (set(batches([job])), job.seq_len, job.steps) == ({64}, 2048, 400)
    assert made.text.count("kind      = solutions") == made.text.count("= truncate") == 2
    form = "type: stepwise_supervised"
    more = f"{form}\n    train_on_last_step_only: true\n    max_completion_length: 512"
    last = imported("axolotl_prm.yaml", STEPS.replace(form, more), gpus=8)
    assert "loss      = last" in last.text
    assert len(found(last, "lost")) == 2
    with pytest.raises(ConfigError, match="the data sets differ in `step_separator`"):
        imported("axolotl_prm.yaml", STEPS.replace(form, f'{form}\n    step_separator: "ки"', 1))


def cosine(step: int, warmup: int, total: int) -> float:
    """transformers' cosine schedule with warm-up."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def linear(step: int, warmup: int, total: int) -> float:
    """transformers' linear schedule with warm-up."""
    return step / warmup if step < warmup else (total - step) / (total - warmup)


@pytest.mark.parametrize(
    ("kind", "curve"),
    [
        ("cosine", cosine),
        ("linear", linear),
        ("constant", lambda step, warmup, total: 1.0),
        ("constant_with_warmup", lambda step, warmup, total: min(step / warmup, 1.0)),
    ],
)
def test_axolotls_learning_rate_is_the_same_at_every_step(
    kind: str, curve: Callable[[int, int, int], float]
) -> None:
    text = changed("axolotl_pretrain.yaml", ("lr_scheduler: cosine", f"lr_scheduler: {kind}"))
    result = jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain")
    wanted = [5e-4 * curve(step, 100, 1000) for step in range(1000)]
    assert rates(result) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


def test_axolotls_cosine_with_restarts() -> None:
    told = "lr_scheduler: cosine_with_restarts\nlr_scheduler_kwargs:\n  num_cycles: 3"
    text = changed("axolotl_pretrain.yaml", ("lr_scheduler: cosine", told))
    result = rates(jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain"))
    wanted = [5e-4 * min(step / 100, cosine((step - 100) % 300, 0, 300)) for step in range(1000)]
    assert result[100:] == pytest.approx(wanted[100:], rel=1e-6, abs=1e-12)
    assert result[:100] == pytest.approx([5e-4 * step / 100 for step in range(100)])


def test_axolotls_warm_up_in_steps_and_lowest_rate() -> None:
    text = changed(
        "axolotl_pretrain.yaml", ("warmup_ratio: 0.1", "warmup_steps: 50\ncosine_min_lr_ratio: 0.1")
    )
    result = rates(jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain"))
    assert result[49] == pytest.approx(5e-4 * 49 / 50)
    wanted = [5e-5 + (5e-4 - 5e-5) * cosine(step, 50, 1000) for step in range(50, 1000)]
    assert result[50:] == pytest.approx(wanted, rel=1e-6)


def test_a_stage_of_dialogs() -> None:
    spec, result = stage_after("axolotl_liger_fsdp.yaml")
    assert 'messages = "conversations"' in spec
    assert "epochs    = 1" in spec
    job = only(jobs(result, "sft"))
    assert job.objective.name == "sft"
    assert job.model.context == 4096
    assert job.torchtitan["training"]["mixed_precision_param"] == "bfloat16"
    assert job.torchtitan["activation_checkpoint"] == {"mode": "full"}
    kwargs = job.torchtitan["optimizer"]["param_groups"][0]["optimizer_kwargs"]
    assert kwargs["betas"] == [0.9, 0.999]
    assert kwargs["weight_decay"] == 0


def test_adafactor_is_that_of_transformers() -> None:
    name = "axolotl_liger_fsdp.yaml"
    text = changed(name, ("optimizer: adamw_torch_fused", "optimizer: adafactor"))
    _, result = stage_after(name, text)
    (group,) = only(jobs(result, "sft")).torchtitan["optimizer"]["param_groups"]
    assert group["optimizer_name"] == "Adafactor"
    assert group["optimizer_kwargs"]["scale_parameter"] is False
    assert group["optimizer_kwargs"]["weight_decay"] == 0


def test_a_stage_of_dpo() -> None:
    name = "axolotl_dpo_lora.yaml"
    text = config(name) + "rl_beta: 0.2\nrpo_alpha: 0.5\ndpo_label_smoothing: 0.1\n"
    spec, result = stage_after(name, text)
    objective = only(jobs(result, "dpo")).objective
    assert (objective.beta, objective.nll, objective.label_smoothing) == (0.2, 0.5, 0.1)
    assert 'fields  = { prompt = "conversation" }' in spec
    lost = found(imported(name, text), "lost")
    assert {"lora_dropout", "load_in_8bit"} <= set(lost)
    assert {"adapter", "lora_r", "lora_alpha"}.isdisjoint(lost)
    assert "lora { rank = 32, alpha = 16, on = [attention, feed_forward] }" in spec
    assert "base_model" not in lost
    assert "load_in_4bit" not in lost


@pytest.mark.parametrize(
    ("rl", "more", "expected"),
    [
        ("ipo", "rl_beta: 0.2\n", {"objective": "ipo", "beta": 0.2, "normalize": True}),
        ("orpo", "orpo_alpha: 0.3\n", {"objective": "orpo", "beta": 0.3, "nll": 1.0}),
        (
            "simpo",
            "rl_beta: 2\nsimpo_gamma: 1.2\ncpo_alpha: 0.0\n",
            {"objective": "simpo", "beta": 2.0, "gamma": 1.2, "nll": 0.0},
        ),
        ("simpo", "", {"objective": "simpo", "beta": 0.1, "gamma": 0.5, "nll": 1.0}),
    ],
)
def test_other_losses_of_pairs(rl: str, more: str, expected: dict[str, Any]) -> None:
    name = "axolotl_dpo_lora.yaml"
    _, result = stage_after(name, changed(name, ("rl: dpo", f"rl: {rl}")) + more)
    assert expected.items() <= only(jobs(result, "dpo")).objective.model_dump().items()


def test_the_rate_of_an_unknown_adapter_is_not_that_of_all_weights() -> None:
    sizes = {"alpaca_messages_2k_dpo_test": 1000}
    text = config("axolotl_dpo_lora.yaml").replace("adapter: lora\n", "adapter: llama-adapter\n")
    made = imported("axolotl_dpo_lora.yaml", text, gpus=4, sizes=sizes)
    assert "lr" in opened(made)
    assert "# lr = 0 -> " in made.text
    assert "adapter" in found(made, "lost")
    for kind in ("adapter: lora\n", "adapter: qlora\n", ""):
        text = config("axolotl_dpo_lora.yaml").replace("adapter: lora\n", kind)
        assert "lr" not in opened(imported("axolotl_dpo_lora.yaml", text, gpus=4, sizes=sizes))


@pytest.mark.parametrize(
    ("given", "on"),
    [
        ("lora_target_modules: [q_proj, v_proj]", "[attention]"),
        ("lora_target_modules: [gate_proj, up_proj, down_proj]", "[feed_forward]"),
        ("", "[attention]"),
    ],
)
def test_the_layers_of_an_adapter(given: str, on: str) -> None:
    text = config("axolotl_dpo_lora.yaml").replace("lora_target_linear: true", given)
    assert f"on = {on} }}" in imported("axolotl_dpo_lora.yaml", text).text


@pytest.mark.parametrize(
    ("old", "new", "attribute"),
    [
        ("lr_scheduler: cosine", "lr_scheduler: rex", "lr"),
        ("optimizer: adamw_torch_fused", "optimizer: muon", "optimizer"),
        ("chat_template: llama3", "chat_template: qwen_25", "template"),
        ("chat_template: llama3\n", "", "template"),
        ("type: chat_template", "type: alpaca", "fields"),
        ("type: chat_template", "type: phi_3", "fields"),
        ("base_model: NousResearch/Meta-Llama-3.1-8B", "base_model: org/Other-0.5B", "family"),
    ],
)
def test_what_axolotl_has_and_etude_lacks_is_open(old: str, new: str, attribute: str) -> None:
    text = changed("axolotl_liger_fsdp.yaml", (old, new))
    options = {"gpus": 2, "sizes": {"finetome_100k": 10**6}}
    assert opened(imported("axolotl_liger_fsdp.yaml", **options)) == []
    assert opened(imported("axolotl_liger_fsdp.yaml", text, **options)) == [attribute]


def test_weights_of_a_family_that_etude_lacks_are_told_by_their_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text('{"model_type": "gemma3"}')
    text = changed("axolotl_liger_fsdp.yaml", ("NousResearch/Meta-Llama-3.1-8B", "./weights"))
    made = imported("axolotl_liger_fsdp.yaml", text, gpus=2, sizes={"finetome_100k": 10**6})
    assert opened(made) == ["family"]
    assert "of the model_type gemma3" in made.of("needed")[0].reason


@pytest.mark.parametrize(
    ("warmup", "rate"), [("0.1", 5e-4 * 10 / 100), ("10", 5e-4), ("0", 5e-4), ("2.5", None)]
)
def test_axolotls_warm_up_may_be_a_share(warmup: str, rate: float | None) -> None:
    """As in transformers 5, a number of steps below 1 is a share of them."""
    text = changed(
        "axolotl_pretrain.yaml",
        ("warmup_ratio: 0.1", f"warmup_steps: {warmup}"),
        ("lr_scheduler: cosine", "lr_scheduler: constant_with_warmup"),
    )
    if rate is None:
        with pytest.raises(ConfigError, match="or a share below 1"):
            stage_after("axolotl_pretrain.yaml", text)
        return
    result = rates(jobs(stage_after("axolotl_pretrain.yaml", text)[1], "pretrain"))
    assert result[10] == pytest.approx(rate)


def test_gpus_that_the_degrees_contradict_are_refused() -> None:
    text = config("axolotl_sft.yaml") + "dp_shard_size: 4\ndp_replicate_size: 2\n"
    assert "8 of" in imported("axolotl_sft.yaml", text).text
    with pytest.raises(ConfigError, match="multiply to 8"):
        imported("axolotl_sft.yaml", text, gpus=16)


@pytest.mark.parametrize(
    ("setting", "long"),
    [
        ("", "drop"),
        ("excess_length_strategy: truncate\n", "truncate"),
        ("excess_length_strategy: raise\n", None),
    ],
)
def test_long_records_are_left_out_as_in_axolotl(setting: str, long: str | None) -> None:
    text = config("axolotl_liger_fsdp.yaml") + setting
    spec = imported("axolotl_liger_fsdp.yaml", text).text
    assert (f"long    = {long}" in spec) if long else "long " not in spec


def test_the_names_of_parts_of_messages_are_carried_over() -> None:
    made = imported("axolotl_liger_fsdp.yaml")
    assert 'role = "from", content = "value"' in made.text
    assert not [key for key in found(made, "lost") if "message_property" in key]


def test_an_objective_that_is_not_there_is_refused() -> None:
    text = changed("axolotl_dpo_lora.yaml", ("rl: dpo", "rl: grpo"))
    with pytest.raises(ConfigError, match="`rl: grpo` is not converted"):
        imported("axolotl_dpo_lora.yaml", text)


def test_kto_learns_from_rated_answers() -> None:
    """A data set whose format the configuration describes itself; `{prompt}` alone is no change."""
    own = (
        "type:\n      field_prompt: question\n      field_completion: reply\n"
        "      field_label: good\n      prompt_format: '{prompt}'\n"
        "      completion_format: 'Answer: {completion}'"
    )
    before, begin, rest = config("axolotl_dpo_lora.yaml").partition("type: chat_template.default")
    text = before.replace("rl: dpo", "rl: kto") + own + rest[rest.index("\nval_set_size") :]
    assert begin
    text += "rl_beta: 0.2\nkto_undesirable_weight: 1.5\n"
    spec, result = stage_after("axolotl_dpo_lora.yaml", text, gpus=4)
    (job,) = jobs(result, "kto")
    assert isinstance(job.objective, Kto)
    assert (job.objective.beta, job.objective.undesirable_weight) == (0.2, 1.5)
    assert 'fields  = { prompt = "question", completion = "reply", label = "good" }' in spec
    lost = found(imported("axolotl_dpo_lora.yaml", text), "lost")
    assert "datasets[0].type.completion_format" in lost
    assert "datasets[0].type.prompt_format" not in lost


def test_a_batch_without_packing_counts_dialogs() -> None:
    """8 a step for each of 8 GPUs: of 1,000,000 dialogs, an epoch has 15,625 steps."""
    alpaca = ("type: alpaca", "type: chat_template")
    packed = stage_after("axolotl_sft.yaml", changed("axolotl_sft.yaml", alpaca), gpus=8)
    text = changed("axolotl_sft.yaml", alpaca, ("sample_packing: true", "sample_packing: false"))
    single = stage_after("axolotl_sft.yaml", text, gpus=8)
    assert ("batch     = 64 seqs" in packed[0], "batch     = 64 dialogs" in single[0]) == (
        True,
    ) * 2
    (rows,), (dialogs,) = (jobs(result, "sft") for _, result in (packed, single))
    assert (rows.rows, dialogs.rows, dialogs.steps) == ("sequences", "dialogs", 15_625)
    assert "sample_packing" not in found(imported("axolotl_sft.yaml", text), "assumed")


def test_plain_texts_are_trained_on_as_documents() -> None:
    text = changed("axolotl_sft.yaml", ("type: alpaca", "type: completion\n    field: body"))
    spec, result = stage_after("axolotl_sft.yaml", text)
    assert 'fields  = { text = "body" }' in spec
    assert "stage pretrain: train" in spec
    assert only(jobs(result, "pretrain")).objective.name == "next_token"


def test_files_instead_of_the_hub() -> None:
    text = changed(
        "axolotl_sft.yaml",
        ("path: tatsu-lab/alpaca", "path: data/chat.jsonl\n    ds_type: json"),
        ("type: alpaca", "type: chat_template"),
    )
    assert 'files   = "data/chat.jsonl"' in imported("axolotl_sft.yaml", text).text


def test_the_places_of_lost_settings_are_told() -> None:
    lost = found(imported("axolotl_liger_fsdp.yaml"), "lost")
    assert lost["datasets[0].split"].line == 12
    assert "train[:20%]" in lost["datasets[0].split"].value


def test_a_setting_that_nobody_knows_is_listed() -> None:
    lost = found(
        imported("axolotl_sft.yaml", config("axolotl_sft.yaml") + "frobnicate: 3\n"), "lost"
    )
    assert lost["frobnicate"].value == "3"


def test_a_size_of_no_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="--size web"):
        imported("axolotl_sft.yaml", sizes={"web": 5})


@pytest.mark.parametrize("protocol", ["chatml", "llama3"])
def test_the_protocol_is_that_of_the_type_where_that_names_one(protocol: str) -> None:
    text = changed(
        "axolotl_dpo_lora.yaml",
        ("chat_template: llama3\n", ""),
        ("type: chat_template.default", f"type: {protocol}.intel"),
    )
    assert f"protocol = {protocol}" in imported("axolotl_dpo_lora.yaml", text).text


@pytest.mark.parametrize(("limit", "written"), [("3", "keep last 3"), ("0", "keep all")])
def test_the_limit_of_checkpoints_stays(limit: str, written: str) -> None:
    text = config("axolotl_pretrain.yaml").replace(
        "save_total_limit: 3", f"save_total_limit: {limit}"
    )
    assert written in imported("axolotl_pretrain.yaml", text).text


@pytest.mark.parametrize(
    ("steps", "warmup"), [(20, 0), (40, 2), (100, 3), (1000, 30), (3334, 100), (10_000, 100)]
)
def test_a_warm_up_that_is_left_to_axolotl_is_3_percent_and_at_most_100_steps(
    steps: int, warmup: int
) -> None:
    text = changed(
        "axolotl_pretrain.yaml",
        ("warmup_ratio: 0.1", ""),
        ("max_steps: 1000", f"max_steps: {steps}"),
        ("lr_scheduler: cosine", "lr_scheduler: constant_with_warmup"),
    )
    spec = " ".join(imported("axolotl_pretrain.yaml", text).text.replace("#", " ").split())
    assert "without warm-up axolotl takes 3 %, at most 100 steps" in spec
    assert (f"0 -> 5e-4 for {warmup} steps" in spec) if warmup else ("0 -> 5e-4" not in spec)


def test_of_a_stage_of_unknown_length_it_says_when_100_steps_are_less() -> None:
    text = changed("axolotl_sft.yaml", ("warmup_ratio: 0.1", ""))
    spec = " ".join(imported("axolotl_sft.yaml", text).text.replace("#", " ").split())
    assert "more than 3,333 steps, write `100 steps`" in spec


EVALUATED = "eval_steps: 50\nearly_stopping_patience: 3\nload_best_model_at_end: true"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (EVALUATED, "{ every = 50 steps, loss = [{0}], patience = 3, keep = best }"),
        ("eval_steps: 50", "{ every = 50 steps, loss = [{0}] }"),
        ("eval_steps: 50\nload_best_model_at_end: true", "keep = best }"),
        ("eval_steps: 0.1", ""),
        ("eval_steps: 50\neval_strategy: epoch", ""),
    ],
)
def test_losses_during_training_are_evaluations_of_the_stage(settings: str, wanted: str) -> None:
    text = changed("axolotl_sft.yaml", ("evals_per_epoch: 2", settings))
    made = imported("axolotl_sft.yaml", text)
    (source,) = data_of("axolotl_sft.yaml")
    if not wanted:
        assert "evaluate = {" not in made.text
        assert "eval_steps" in found(made, "lost")
        return
    assert wanted.replace("{0}", source) in made.text
    names = {line.partition(":")[0] for line in settings.splitlines()}
    assert names <= found(made, "carried").keys()
