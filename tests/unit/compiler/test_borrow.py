"""Stages of variants in a recipe: `average { of = [anneal, hot.anneal] }`."""

from typing import Any

import pytest
from specs import HEAD, POST_TRAINING, after, check, compiled, miniature, only, plan, stage

from etude.compiler.plan.plan import Plan
from etude.lsp.names import Names
from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text.parse import parse

SPEC = (
    HEAD
    + stage(lr="0 -> 1e-3 for 10 steps then 1e-3")
    + after("mid", data="{ web 50%, math 50% }")
    + after("anneal", lr="last -> 0")
    + "stage soup: average { of = [anneal, hot.anneal, mixed.anneal] }\n"
    + "stage exam: evaluate { loss = [web] }\n"
    + "variant hot { anneal.lr = last -> 1e-4 }\n"
    + "variant mixed { mid.data = math }\n"
    + "variant late { exam.loss = [math] }\n"
)


def job(name: str, of: Plan) -> Any:
    return only([job for job in of.jobs if job.id == name])


def sources(name: str, of: Plan) -> dict[str, str]:
    ids = {job.key: job.id for job in of.jobs}
    return {role: ids[key] for role, key in job(name, of).inputs.items()}


def of_variant(text: str, variant: str) -> Plan:
    return plan(text, variant=variant)


MADE = plan(SPEC)


def test_what_a_variant_changes_and_what_follows_from_it_becomes_a_stage() -> None:
    assert list(MADE.stages) == [
        "first",
        "mid",
        "mixed.mid",
        "anneal",
        "mixed.anneal",
        "hot.anneal",
        "soup",
        "exam",
    ]
    assert sources("hot.anneal.1", MADE)["model"] == "mid.1"
    assert sources("mixed.anneal.1", MADE)["model"] == "mixed.mid.1"
    assert sources("mixed.mid.1", MADE)["model"] == "first.1"
    assert list(sources("soup", MADE).values()) == [
        "anneal.1",
        "hot.anneal.1",
        "mixed.anneal.1",
    ]


@pytest.mark.parametrize("variant", ["hot", "mixed"])
def test_it_is_the_work_of_the_variant_and_is_done_once(variant: str) -> None:
    own = job("anneal.1", of_variant(SPEC, variant))
    assert own.key == job(f"{variant}.anneal.1", MADE).key
    assert own.key != job("anneal.1", MADE).key


def test_of_the_variant_itself_it_is_its_own_stage() -> None:
    made = of_variant(SPEC, "hot")
    assert list(sources("soup", made).values()) == ["anneal.1", "anneal.1", "mixed.anneal.1"]
    # Changes add up: in the variant `hot`, that of `mixed` has both.
    assert job("mixed.anneal.1", made).schedule.lr[-1].end == 1e-4


def test_a_default_from_is_what_is_above_in_the_variant() -> None:
    text = SPEC.replace("mid.data = math", "mid.data = math, first.clip = 0.5")
    made = plan(text)
    assert sources("mixed.mid.1", made)["model"] == "mixed.first.1"
    assert "mixed.exam" not in made.stages


def test_a_data_set_that_a_variant_changes_stands_beside_its_own() -> None:
    text = SPEC.replace("mid.data = math", "math.documents = 50 docs")
    made = plan(text)
    assert job("mixed.mid.1", made).data.keys() == {"web", "mixed.math"}
    assert job("mixed.anneal.1", made).data.keys() == {"web", "mixed.math"}
    assert job("hot.anneal.1", made).data.keys() == {"web", "math"}


ROUNDS = (
    POST_TRAINING.replace("of = [dpo, previous.dpo or dpo]", "of = [dpo, soft.dpo]")
    + "variant soft { align.sft.lr = 2e-4, align.drafts.draws = 6 }\n"
)


def test_in_rounds_the_stages_of_a_variant_are_those_of_the_same_round() -> None:
    made = plan(ROUNDS)
    assert list(sources("align.2.chat", made).values()) == [
        "align.2.dpo.1",
        "align.2.soft.dpo.1",
    ]
    assert sources("align.2.soft.dpo.1", made)["model"] == "align.2.soft.sft.1"
    # The drafts differ, so that the data of sft and dpo do.
    assert job("align.2.soft.drafts", made).draws == 6
    names = job("align.2.soft.sft.1", made).data.keys()
    assert names == {"align.2.soft.drafts", "human"}
    assert "align.2.soft.drafts.pairs" in job("align.2.soft.dpo.1", made).data


def test_a_variant_whose_name_ends_that_of_the_rounds_is_taken_too() -> None:
    made = plan(ROUNDS.replace("soft", "n").replace("align", "run"))
    assert list(sources("run.2.chat", made).values()) == ["run.2.dpo.1", "run.2.n.dpo.1"]


def test_where_variants_meet_they_are_one_model_again() -> None:
    made = plan(ROUNDS)
    assert not [name for name in made.stages if name.endswith("soft.chat")]
    assert sources("align.2.soft.drafts.draws", made)["model"] == "export.align.1.chat"
    assert sources("align.2.soft.drafts.judge", made)["model"] == "align.2.rm.1"


def test_a_stage_of_a_variant_that_reads_a_later_round_is_warned_of_too() -> None:
    text = ROUNDS.replace(", candidates = drafts", "")
    early = text.replace("align.sft.lr", "align.dpo.data = labels[2], align.sft.lr")
    found = [(d.code, d.message) for d in check(early)]
    assert found == [("W624", "round 1 trains on `labels[2]`, which is only collected in round 2")]
    assert check(text) == []


def test_outside_of_rounds_the_last_one_is_meant_or_that_of_an_index() -> None:
    text = (
        POST_TRAINING.replace("{ drafts 60%, human 40% }", "human")
        + "stage means: average { of = [align.sft, soft.align.sft, soft.align.sft[1]] }\n"
        + "variant soft { align.sft.lr = 2e-4 }\n"
    )
    made = plan(text)
    assert list(sources("means", made).values()) == [
        "align.2.sft.1",
        "align.2.soft.sft.1",
        "align.1.soft.sft.1",
    ]
    own = of_variant(text, "soft")
    assert job("align.1.sft.1", own).key == job("align.1.soft.sft.1", made).key


def test_other_attributes_take_stages_of_variants_too() -> None:
    made = plan(
        SPEC + "stage more: train { from = hot.anneal, steps = 5, lr = 1e-4 }\n"
        "stage pick: best { of = [anneal, hot.anneal], loss = [web] }\n"
    )
    assert sources("more.1", made)["model"] == "hot.anneal.1"
    assert job("pick", made).of == ["anneal", "hot.anneal"]


def test_claims_name_them_as_references_do() -> None:
    claim = "expect {{ {} = 10 within 0% }}"
    assert check(SPEC + claim.format("hot.anneal.steps")) == []
    assert check(ROUNDS + claim.format("soft.align.sft.steps")) == []


def test_values_of_a_variant_say_so() -> None:
    values = MADE.stages["hot.anneal"].values
    assert values["lr"].origin == "variant hot"
    assert MADE.stages["anneal"].values["lr"].origin == "spec"
    assert values["batch"].origin == "from mid"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("mid.data = math", []),
        ("exam.loss = [math]", ["W639"]),
        ("tiny.dim = 128", ["E506"]),
        ("recipe.seed = 2", ["E506"]),
        ("mid.data = maths", ["E402"]),
        ("mid.data = 3 steps", ["E506"]),
    ],
)
def test_what_cannot_be_taken_is_said(change: str, code: list[str]) -> None:
    found = check(SPEC.replace("mid.data = math", change))
    assert code == [d.code for d in found if not d.message.startswith("variant `")]
    if code:
        at = SPEC.replace("mid.data = math", change)[found[0].span.start :] if found[0].span else ""
        assert at.startswith("[anneal") or code == ["E402"]


@pytest.mark.parametrize("name", ["hot.anneals", "hat.anneal", "hot.exam", "hot"])
def test_a_stage_that_no_variant_has_is_an_error(name: str) -> None:
    _, report = compiled(SPEC.replace("hot.anneal", name))
    assert {d.code for d in report.errors} <= {"E402", "E403"}
    assert report.errors


def test_the_number_of_rounds_is_the_recipes() -> None:
    text = ROUNDS.replace("variant soft {", "variant soft { align.rounds = 3,")
    assert "E506" in [d.code for d in check(text)]


def test_a_miniature_keeps_them() -> None:
    small = miniature(SPEC)
    assert list(small.stages) == list(MADE.stages)
    assert job("hot.anneal.1", small).schedule.lr != job("anneal.1", small).schedule.lr


def test_editors_find_the_variant_and_the_stage() -> None:
    text = SPEC
    source = Source("spec", text)
    names = Names([parse(source, Report())])
    at = text.index("hot.anneal")
    found = [names.at(source, at + 1), names.at(source, at + 5)]
    assert [of.symbol[::2] for of in found if of] == [("variant", "hot"), ("stage", "anneal")]


def test_editors_read_every_part_of_a_reference() -> None:
    choice = "soft.previous.dpo or soft.dpo"
    text = ROUNDS.replace("of = [dpo, soft.dpo]", f"of = [dpo, {choice}]")
    text += "stage mean: average { of = [align.dpo, soft.align.dpo[1]] }\n"
    made = plan(text)
    assert list(sources("align.2.chat", made).values()) == ["align.2.dpo.1", "align.1.soft.dpo.1"]
    names = Names([parse(source := Source("spec", text), Report())])

    def meant(reference: str, word: str) -> tuple[str, ...] | None:
        found = names.at(source, text.index(reference) + reference.index(word))
        return found and tuple(found.symbol)

    for reference in (choice, "soft.align.dpo[1]"):
        assert meant(reference, "soft") == ("variant", "", "soft")
        assert meant(reference, "dpo") == ("stage", "align", "dpo")
    assert meant(choice, "previous") is None
    assert meant("soft.align.dpo[1]", "align") == ("stage", "", "align")
