"""TRL's configurations as specs: numbers, what is open, what is refused, what is said aloud."""

from typing import Any

import pytest
from importing import changed, config, filled, found, imported, opened
from specs import batches, jobs, only, plan, rates

from etude.authoring.draft import Options
from etude.authoring.imports import KINDS, Imported, import_config
from etude.authoring.tree import ConfigError
from etude.authoring.trl_settings import OWN
from etude.compiler.plan.plan import Dpo, Grpo, Plan, Prm, RolloutJob, Sft

FEW = "model_name_or_path: meta-llama/Llama-3.1-8B\ndataset_name: trl-lib/Capybara\n"


def of(text: str, kind: str | None = None, **options: Any) -> Imported:
    given: dict[str, Any] = {"gpus": 8, **options}
    return import_config(FEW + text, "trl.yaml", kind=kind, options=Options(**given))


def planned(name: str, **options: Any) -> Plan:
    given: dict[str, Any] = {"gpus": 8, **options}
    return plan(filled(imported(name, **given).text))


def test_sft_learns_what_trl_learns() -> None:
    made = planned("trl_sft.yaml", sizes={"capybara": 2048 * 128 * 50})
    (job,) = jobs(made, "sft")
    assert set(batches([job])) == {2 * 8 * 8}
    assert (job.seq_len, job.steps) == (2048, 100)
    assert isinstance(job.objective, Sft)
    assert job.objective.loss_on == "assistant"
    expected = [2e-5 * step / 3 for step in range(3)]
    assert rates([job])[:3] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("kind", "said"), [("lion_32bit", False), ("paged_lion_8bit", True)])
def test_lion_is_that_of_transformers(kind: str, said: bool) -> None:
    made = of(f"optim: {kind}\nweight_decay: 0.1\nadam_beta2: 0.99\nadam_epsilon: 1e-6\n")
    assert "lion { betas = [0.9, 0.99], weight_decay = 0.1 }" in made.text
    assert ("Lion with its moment in fp32" in str(made)) == said


def test_adafactor_is_that_of_transformers() -> None:
    made = of("optim: adafactor\nweight_decay: 0.1\nadam_beta2: 0.9\n")
    assert "adafactor { scale_parameter = false, weight_decay = 0.1 }" in made.text
    assert "optimizer" not in opened(made)
    assert "adam_beta2" not in {each.key for each in made.of("lost")}


def test_without_masks_every_token_is_learned_and_this_is_said() -> None:
    made = of("")
    assert "loss      = all" in made.text
    assert "completion_only_loss" in {each.key for each in made.of("assumed")}
    for masked in ("assistant_only_loss", "completion_only_loss"):
        assert "= all" not in of(f"{masked}: true\n").text


def test_preferences_and_their_cross_entropy_are_added() -> None:
    (job,) = jobs(planned("trl_dpo.yaml"), "dpo")
    assert isinstance(job.objective, Dpo)
    assert (job.objective.beta, job.objective.nll) == (0.05, 0.2)
    assert set(batches([job])) == {2 * 4 * 8}
    assert job.steps == 400
    lora = job.torchtitan["adapter"]["LoRAConverter"]
    assert (lora["rank"], lora["alpha"]) == (32, 16)
    assert rates([job])[40] == 5e-7


@pytest.mark.parametrize(
    ("loss", "lines"),
    [
        ("sigmoid", []),
        ("sigmoid_norm", ["normalize = true"]),
        ("ipo", ["objective = ipo", "normalize = true"]),
        ("hinge", ["objective = hinge"]),
        ("robust", ["objective = robust"]),
        ("apo_zero", ["objective = apo_zero"]),
        ("apo_down", ["objective = apo_down"]),
    ],
)
def test_losses_of_preferences(loss: str, lines: list[str]) -> None:
    text = " ".join(of(f"loss_type: {loss}\nbeta: 0.1\n", kind="trl-dpo").text.split())
    assert all(line in text for line in lines)
    assert ("objective" in text) == any("objective" in line for line in lines)


def test_steps_of_answers() -> None:
    """What TRL's `PRMConfig` says, and what it leaves to its defaults."""
    text = 'step_separator: "\\n\\n"\ntrain_on_last_step_only: true\nmax_prompt_length: 300\n'
    made = of(text, sizes={"capybara": 6400})
    (job,) = jobs(plan(filled(made.text)), "prm")
    assert job.objective == Prm(loss_on="last")
    assert (set(batches([job])), job.seq_len, job.steps) == ({8 * 8}, 1024, 300)
    assert rates([job])[0] == 1e-5
    assert r'separator = "\n\n"' in made.text
    assert [*found(made, "lost")] == ["max_prompt_length"]
    few = of("train_on_last_step_only: false\nmax_completion_length: null\n")
    assert "separator" not in few.text
    assert "loss" not in few.text
    assert found(few, "lost") == {}


def test_a_policys_batch_counts_prompts_and_a_turn_several_steps() -> None:
    few = changed("trl_grpo.yaml", ("max_steps: 500", "max_steps: 4"))
    made = imported("trl_grpo.yaml", few, gpus=8)
    text = made.text.replace('open seq_len "', 'seq_len = 3Ki # "')
    drawn = plan(filled(text))
    (rollouts, *_) = (job for job in drawn.jobs if isinstance(job, RolloutJob))
    assert rollouts.group == 8
    assert rollouts.prompts == [4 * 4 * 8 // 8] * 2  # two steps a turn
    assert rollouts.rewards == {"accuracy": 1, "think_format": 0.2}
    assert rollouts.scale == "group"
    assert rollouts.mask_truncated
    learned = only(list(jobs(drawn, "grpo"))[:1])
    assert isinstance(learned.objective, Grpo)
    assert learned.objective.objective == "dapo"
    assert learned.objective.clip_ratio == (0.2, 0.28)
    assert learned.objective.temperature == 0.9
    assert "top_p" in found(made, "lost")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("scale_rewards: false", "advantage      = none"),
        ("scale_rewards: batch", "advantage      = batch"),
        ("loss_type: grpo\nimportance_sampling_level: sequence", "objective      = gspo"),
        ("beta: 0.04", "kl             = 0.04"),
        ("epsilon_high: 0.3", "clip_ratio     = [0.2, 0.3]"),
    ],
)
def test_settings_of_policies(setting: str, line: str) -> None:
    text = of(f"num_generations: 4\nmax_steps: 2\n{setting}\n").text
    names = {" ".join(each.split()) for each in text.splitlines()}
    assert " ".join(line.split()) in names


def test_a_published_reward_model_scores() -> None:
    made = of("reward_model_name_or_path: Skywork/Skywork-Reward-Llama-3.1-8B-v0.2\n")
    assert "head" in made.text
    assert "score" in made.text
    assert "reward" in made.text


def test_reward_functions_of_the_users_own_stay_open() -> None:
    made = of("reward_funcs: [accuracy_reward, my.rewards.brevity]\n")
    assert "reward" in opened(made)
    assert "my.rewards.brevity" in made.text


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "robust"])
def test_labels_are_smoothed_where_trl_smooths_them(loss: str) -> None:
    made = of(f"loss_type: {loss}\nlabel_smoothing: 0.1\n", kind="trl-dpo")
    read = loss == "robust"
    assert ("label_smoothing" in made.text) == read
    reasons = [each.reason for each in made.of("irrelevant") if each.key == "label_smoothing"]
    assert len(reasons) == (0 if read else 1)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("packing: true\n", "sft"),
        ("beta: 0.1\nlabel_smoothing: 0.1\n", "dpo"),
        ("num_generations: 8\n", "grpo"),
        ("desirable_weight: 1.2\n", "kto"),
        ("center_rewards_coefficient: 0.01\n", "reward"),
        ("train_on_last_step_only: true\n", "prm"),
        ("loss_type: dapo\n", "grpo"),
        ("loss_type: hinge\n", "dpo"),
    ],
)
def test_the_settings_tell_the_command(text: str, kind: str) -> None:
    made = of(text)
    assert f"stage {kind}: {kind} {{" in made.text
    assert "command" not in {each.key for each in made.of("assumed")}


def test_where_the_settings_do_not_tell_the_command_it_is_said_and_can_be_named() -> None:
    made = of("learning_rate: 1e-5\n")
    (said,) = (each for each in made.of("assumed") if each.key == "command")
    assert "trl sft" in said.reason
    assert "--from trl-dpo" in said.reason
    named = of("learning_rate: 1e-5\n", kind="trl-kto")
    assert "stage kto: kto {" in named.text
    assert "command" not in {each.key for each in named.of("assumed")}
    with pytest.raises(ConfigError, match="not a configuration of trl-kto"):
        of("packing: true\n", kind="trl-kto")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss_type: exo_pair\n", "`loss_type: exo_pair` is not converted"),
        ("loss_type: [sigmoid, hinge]\n", "`loss_type: sigmoid, hinge` is not converted"),
        ("loss_type: cispo\n", "`loss_type: cispo` with"),
        ("loss_type: dft\n", "`loss_type: dft` is not converted"),
        ("loss_type: apo_zero_unpaired\n", "is not converted"),
        ("num_generations: 3\nmax_steps: 1\n", "has no whole groups of 3"),
        ("packing: 3\n", "`packing` is 3, but should be true or false"),
        ("warmup_steps: -3\n", "`warmup_steps` is -3"),
    ],
)
def test_what_is_refused_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        of(text)


def test_text_fields_are_documents() -> None:
    made = of("dataset_text_field: content\nmax_steps: 10\n", gpus=2)
    assert "stage pretrain: train {" in made.text
    assert "fields = { text" in " ".join(made.text.split())
    assert "kind" not in made.text.split("dataset ")[1].split("}")[0]


@pytest.mark.parametrize("kind", OWN)
def test_no_setting_of_trl_is_unknown(kind: str) -> None:
    """Every name in TRL's own configurations is converted, irrelevant or lost for a reason."""
    losses = {"dpo": "sigmoid", "grpo": "grpo", "kto": "kto", "sft": "nll"}
    values = {name: _VALUES.get(name, "8") for name in sorted(OWN[kind])}
    values |= {"loss_type": losses[kind]} if "loss_type" in values else {}
    lines = "".join(f"{name}: {value}\n" for name, value in values.items())
    made = of(lines, kind=f"trl-{kind}")
    reasons = {each.key: each.reason for each in made.findings}
    assert reasons.keys() >= values.keys()
    assert [name for name in values if "does not know" in reasons[name]] == []


_VALUES: dict[str, str] = dict.fromkeys(
    [
        "activation_offloading",
        "assistant_only_loss",
        "completion_only_loss",
        "packing",
        "padding_free",
        "mask_truncated_completions",
        "sync_ref_model",
        "disable_dropout",
        "shuffle_dataset",
        "eval_packing",
        "train_on_last_step_only",
    ],
    "true",
) | {"importance_sampling_level": "token", "num_generations": "8", "truncation_mode": "keep_start"}


def test_commands_are_kinds_of_configurations() -> None:
    assert {f"trl-{kind}" for kind in OWN} < {*KINDS}


def test_data_on_the_hub_need_no_size_for_a_check() -> None:
    """Their length is a guess until they are read; 100 steps between evaluations fit into it."""
    text = config("trl_sft.yaml")
    assert "eval_steps: 100" in text
    made = plan(filled(imported("trl_sft.yaml", text, gpus=8).text))
    assert made.counts[0].said.startswith("a guess")
