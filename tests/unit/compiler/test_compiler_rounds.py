"""Rounds: what names mean in them, which jobs they become, and which work is the same."""

import time
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, POST_TRAINING, analysed, check, compiled, only, plan

from etude.compiler.plan.plan import DatasetJob, FilterJob, Plan, SampleJob, TrainJob
from etude.compiler.plan.plan_schema import read_plan

MADE = plan(POST_TRAINING)


def job(name: str, of: Plan = MADE) -> Any:
    """The job of an id."""
    return only([job for job in of.jobs if job.id == name])


def sources(name: str, of: Plan = MADE) -> dict[str, str]:
    """Role → id of the job that provides it."""
    ids = {job.key: job.id for job in of.jobs}
    return {role: ids[key] for role, key in job(name, of).inputs.items()}


def changed(*replacements: tuple[str, str]) -> Plan:
    """The plan of the spec with other text in it."""
    text = POST_TRAINING
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return plan(text)


def test_every_stage_stands_once_a_round() -> None:
    inner = ["rm", "drafts", "sft", "dpo", "chat"]
    rounds = [f"align.{number}.{name}" for number in (1, 2) for name in inner]
    assert set(MADE.stages) == {"first", *rounds, "exam", "pick"}
    order = list(MADE.stages)
    assert order.index("align.1.chat") < order.index("align.2.drafts") < order.index("align.2.chat")


def test_previous_is_the_round_before_and_in_the_first_round_what_stands_after_or() -> None:
    assert sources("align.1.drafts.draws")["model"] == "export.first"
    assert sources("align.2.drafts.draws")["model"] == "export.align.1.chat"
    assert sources("align.1.chat") == {"of.0": "align.1.dpo.1", "of.1": "align.1.dpo.1"}
    assert sources("align.2.chat") == {"of.0": "align.2.dpo.1", "of.1": "align.1.dpo.1"}


def test_a_name_in_rounds_is_the_stage_of_the_same_round() -> None:
    assert sources("align.2.drafts.judge")["model"] == "align.2.rm.1"
    assert sources("align.2.drafts.judge")["draws"] == "align.2.drafts.draws"
    assert sources("align.2.drafts")["judged"] == "align.2.drafts.judge"
    assert sources("align.2.dpo.1")["model"] == "align.2.sft.1"


def test_outside_a_name_is_the_last_round_and_an_index_any_round() -> None:
    assert sources("exam.draws")["model"] == "export.align.2.chat"
    assert sources("exam.judge")["model"] == "align.2.rm.1"
    assert sources("exam") == {"draws": "exam.draws", "judged": "exam.judge"}
    assert job("pick").of == ["align.2.chat", "align.1.chat"]
    made = plan(POST_TRAINING + "stage mean: average { of = [align.sft[1..2], first] }\n")
    assert list(sources("mean", made).values()) == ["align.1.sft.1", "align.2.sft.1", "first.1"]


def test_an_index_of_a_file_with_round_names_files() -> None:
    text = "data = { labels[round] 50%, drafts.pairs 50% }"
    assert job("dataset.labels[2]").source["files"] == ["2.jsonl"]
    made = changed((text, "data = labels[1..round]"))
    assert job("dataset.labels[1]", made).source["files"] == ["1.jsonl"]
    assert job("dataset.labels[1..2]", made).source["files"] == ["1.jsonl", "2.jsonl"]


def test_other_data_are_dealt_out_to_the_rounds() -> None:
    assert job("dataset.ranked[1]").source["deal"] == [2, 1, 1]
    assert job("dataset.ranked[1..2]").source["deal"] == [2, 1, 2]
    assert job("dataset.asked[2]").source["deal"] == [2, 2, 2]
    assert "deal" not in job("dataset.human").source


def test_drafts_are_dialogs_and_their_pairs_preferences() -> None:
    drafts, pairs = job("dataset.align.2.drafts"), job("dataset.align.2.drafts.pairs")
    assert (drafts.form, drafts.source) == ("dialogs", {"kind": "job", "file": "drafts.jsonl"})
    assert (pairs.form, pairs.source) == ("preferences", {"kind": "job", "file": "pairs.jsonl"})
    for name in (drafts.id, pairs.id):
        assert sources(name)["from.0"] == "align.2.drafts"


def test_drafts_of_several_rounds_are_one_dataset() -> None:
    made = changed(("{ drafts 60%, human 40% }", "drafts[1..round]"))
    found = sources("dataset.align.drafts[1..2]", made)
    assert [v for k, v in found.items() if k.startswith("from.")] == [
        "align.1.drafts",
        "align.2.drafts",
    ]


IN_ROUNDS = "  stage chat: average { of"


def findings(*replacements: tuple[str, str], more: str = "") -> list[tuple[str, str, str]]:
    """Codes, messages and helps for the spec with other text in it, as `etude check` has them."""
    text = POST_TRAINING
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return [(d.code, d.message, d.help) for d in check(text + more)]


def test_data_of_the_round_before_are_those_of_an_or_in_the_first() -> None:
    made = changed(
        (
            IN_ROUNDS,
            "  stage seen: evaluate { from = rm, accuracy = [previous.drafts.pairs or ranked] }\n"
            + IN_ROUNDS,
        ),
    )
    measured = [sources(f"heldout.align.{number}.seen", made) for number in (1, 2)]
    assert [[v for k, v in found.items() if k.startswith("data:")] for found in measured] == [
        ["dataset.ranked"],
        ["dataset.align.1.drafts.pairs"],
    ]


def test_a_mixture_of_the_round_before_says_how_all_rounds_are_named() -> None:
    found = findings(("{ drafts 60%, human 40% }", "{ previous.drafts 60%, human 40% }"))
    assert found == [
        (
            "E502",
            "the first round has no previous round",
            "write `drafts[1..round]`: those of all rounds up to this one",
        )
    ]


def test_the_round_before_is_one_round_and_has_none_to_choose() -> None:
    found = findings(("from = previous.chat or first", "from = previous.chat[1] or first"))
    assert found == [
        (
            "E501",
            "`previous.chat` is the stage of one round: it cannot be indexed",
            "write `previous.chat`, or `chat[1]`",
        )
    ]


@pytest.mark.parametrize(
    ("choice", "help"),
    [
        ("sft or first", "write `previous.sft or first`"),
        ("align.sft or first", "write `previous.sft or first`"),
        ("first or sft", "write `first` or `sft` alone"),
    ],
)
def test_a_choice_without_the_round_before_says_what_can_be_written(choice: str, help: str) -> None:
    found = findings(("from = sft, data = {", f"from = {choice}, data = {{"))
    assert found == [("E502", "the first alternative must be a stage of the previous round", help)]


@pytest.mark.parametrize(
    ("reference", "codes"),
    [
        ("previous.nix or first", ["E402"]),
        ("first or exam", ["E502"]),
        ("nix or first", ["E402", "E502"]),
    ],
)
def test_beside_another_error_a_reference_is_reported_once(
    reference: str, codes: list[str]
) -> None:
    found = findings(
        ("from = previous.chat or first", f"from = {reference}"),
        more="stage odd: sft { from = first, data = human, lr = 1q, steps = 5 }\n",
    )
    assert [code for code, *_ in found] == [*codes, "E111"]


def test_drafts_are_data_outside_the_rounds_too() -> None:
    made = plan(
        POST_TRAINING
        + "stage all: sft { from = first, data = align.drafts[1..2], lr = 1e-4, steps = 5 }\n"
        + "stage newest: sft { from = first, data = align.drafts, lr = 1e-4, steps = 5 }\n"
    )
    (everything,) = [r for r in sources("all.1", made) if r.startswith("data:")]
    assert everything == "data:align.drafts[1..2]"
    (newest,) = [r for r in sources("newest.1", made) if r.startswith("data:")]
    assert newest == "data:align.2.drafts"


def test_awaited_data_have_the_draws_of_their_round_to_label() -> None:
    for number in (1, 2):
        labels = job(f"dataset.labels[{number}]")
        assert labels.awaited
        assert sources(labels.id)["candidates"] == f"align.{number}.drafts"
    assert not job("dataset.human").awaited


def test_preferences_have_a_reference_a_source_from_the_stage_that_dpo_goes_on_from() -> None:
    for source in ("labels[2]", "align.2.drafts.pairs"):
        found = sources(f"reference.align.2.dpo.{source}")
        assert found == {"model": "align.2.sft.1", f"data:{source}": f"dataset.{source}"}
        assert sources("align.2.dpo.1")[f"reference:{source}"] == f"reference.align.2.dpo.{source}"
    other = changed(("from = sft, data", "from = sft, reference = first, data"))
    assert sources("reference.align.2.dpo.labels[2]", other)["model"] == "first.1"


def test_objectives_say_what_the_stages_optimize() -> None:
    made = changed(("    lr = 1e-5\n", "    lr = 1e-5, beta = 0.3, nll = 0.2, mask = formatting\n"))
    objective = {name: job(f"align.1.{name}.1", made).objective for name in ("rm", "sft", "dpo")}
    assert objective["rm"].model_dump() == {"name": "reward", "layout": "joint"}
    assert objective["sft"].model_dump() == {"name": "sft", "loss_on": "assistant"}
    assert objective["dpo"].model_dump() == {
        "name": "dpo",
        "beta": 0.3,
        "nll": 0.2,
        "label_smoothing": 0.0,
        "normalize": False,
        "mask": "formatting",
        "layout": "joint",
    }
    assert job("first.1", made).objective.name == "next_token"


def test_similar_responses_are_dropped_where_the_spec_says_so_only() -> None:
    assert job("dataset.ranked[1]").drop_similar == 0.9
    assert job("dataset.labels[1]").drop_similar is None


def test_exports_of_reward_models_have_their_head_and_all_the_dialog() -> None:
    text = "stage rm: reward { from = first, data = ranked, steps = 1, batch = 4 pairs, lr = 1e-4 }"
    assert job("export.rm", plan(POST_TRAINING + text)).head == "score"
    chat = job("export.align.1.chat")
    assert (chat.head, chat.dialog) == ("tokens", {"protocol": "llama3"})
    assert job("export.first").dialog is None


def test_the_best_draw_is_kept_where_a_judge_says_which_and_else_all() -> None:
    assert [job.keep for job in MADE.jobs if isinstance(job, SampleJob)] == [1, 1]
    text = "asked[round], draws = 4, max_tokens = 8, judge = rm"
    made = changed((text, text.replace(", judge = rm", "")))
    assert [job.keep for job in made.jobs if isinstance(job, SampleJob)] == [0, 0]


def test_stages_after_pretraining_read_their_data_anew_and_each_in_its_own_order() -> None:
    windows = [
        w
        for j in MADE.jobs
        if isinstance(j, TrainJob) and j.stage != "first"
        for w in j.data.values()
    ]
    assert {w.first_token for w in windows} == {0}
    seeds = {j.seed for j in MADE.jobs if isinstance(j, TrainJob)}
    assert len(seeds) == 7


def test_filters_become_jobs_between_the_scores_and_what_reads_the_documents() -> None:
    made = plan(
        HEAD + 'dataset raw { files = "raw.jsonl", keep 10% where q.loss > 4\n'
        'drop where q.loss > 9\nkeep where url in "good.txt" }\n'
        "stage first: train { model = tiny, steps = 9, seq_len = 16, batch = 4 seqs, lr = 1e-3\n"
        "data = web }\nstage q: score { data = [raw] }\nstage more: train { steps = 9, data = raw }"
    )
    assert sources("q.raw", made) == {"model": "first.1", "data:raw": "dataset.raw"}
    assert sources("filter.raw", made) == {"data": "dataset.raw", "scores:q": "q.raw"}
    assert sources("more.1", made)["data:raw"] == "filter.raw"
    filtered = only([job for job in made.jobs if isinstance(job, FilterJob)])
    assert [(rule.op, rule.value, rule.keep) for rule in filtered.rules] == [
        (">", 4.0, "1/10"),
        (">", 9.0, "0"),
    ]
    assert job("dataset.raw", made).source["sites"] == [
        {"field": "url", "file": "good.txt", "keep": True}
    ]


LABELS_ONLY = (
    ("data = ranked[1..round]", "data = labels[1..round]"),
    ("prompts = asked[round]", "prompts = asked"),
    (", candidates = drafts", ""),
)


def test_another_round_changes_no_key_of_the_earlier_ones() -> None:
    """Where data come in files of their own for each round."""
    two = changed(*LABELS_ONLY)
    three = changed(*LABELS_ONLY, ("align 2", "align 3"))
    keys = {job.id: job.key for job in three.jobs}
    last = ("exam", "exam.draws", "exam.judge", "pick", "export.pick", "heldout.pick.0")
    earlier = {j.id: j.key for j in two.jobs if j.id not in last}
    assert earlier
    assert {name: keys[name] for name in earlier} == earlier


def test_dpo_s_beta_changes_dpo_and_what_comes_of_it_only() -> None:
    other = changed(("    lr = 1e-5\n", "    lr = 1e-5, beta = 0.2\n"))
    before = {job.id: job.key for job in MADE.jobs}
    same = {job.id for job in other.jobs if before[job.id] == job.key}
    kept = {
        "first.1",
        "align.1.rm.1",
        "align.1.drafts",
        "align.1.sft.1",
        "align.2.rm.1",
        "reference.align.1.dpo.labels[1]",
        "dataset.labels[1]",
    }
    assert kept <= same
    assert (
        not {
            "align.1.dpo.1",
            "align.1.chat",
            "align.2.drafts",
            "align.2.dpo.1",
            "exam",
            "dataset.labels[2]",
        }
        & same
    )


def test_equal_work_stands_in_the_plan_once() -> None:
    assert len({job.key for job in MADE.jobs}) == len(MADE.jobs)
    assert len({job.id for job in MADE.jobs}) == len(MADE.jobs)
    assert sum(isinstance(j, DatasetJob) and j.name == "human" for j in MADE.jobs) == 1


def test_inputs_come_before_the_jobs_that_take_them() -> None:
    seen: set[str] = set()
    for each in MADE.jobs:
        assert set(each.inputs.values()) <= seen
        seen.add(each.key)


def test_the_plan_is_the_same_bytes_again_and_survives_its_file(tmp_path: Path) -> None:
    assert plan(POST_TRAINING).to_json() == MADE.to_json()
    file = tmp_path / "plan.json"
    file.write_text(MADE.to_json())
    assert read_plan(file) == MADE


def test_claims_of_a_stage_in_rounds_are_about_the_last_round() -> None:
    made = plan(POST_TRAINING + "expect { align.dpo.steps = 10, steps = 160 }\n")
    assert [claim.computed for claim in made.claims] == [10, 160]


def test_what_is_wrong_in_every_round_is_said_once() -> None:
    text = POST_TRAINING.replace("align 2", "align 30").replace("{ drafts 60%, human 40% }", "web")
    found = compiled(text)[1].ordered()
    assert [d.code for d in found] == ["E511"]


@pytest.mark.parametrize("count", [6, 1000])
def test_many_rounds_are_checked_in_little_time(count: int) -> None:
    begin = time.process_time()
    program = analysed(POST_TRAINING.replace("align 2", f"align {count}")).program
    assert program
    assert len(program.stages) == 5 * count + 3
    assert time.process_time() - begin < 1 + count / 50
