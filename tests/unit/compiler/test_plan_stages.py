"""`etude plan` shows the stages of later rounds, and of variants, by what differs."""

import io
from contextlib import redirect_stdout

from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.cli.plan_stages import show_stages
from etude.compiler.plan.plan import Plan


def shown(made: Plan) -> dict[str, str]:
    """Stage → what is printed of it, on one line."""
    with redirect_stdout(io.StringIO()) as out:
        show_stages(made)
    parts = [part.split(": ", 1) for part in out.getvalue().strip().split("\n\n")]
    return {name: " ".join(text.split()) for name, text in parts}


def test_a_later_round_shows_what_is_not_as_in_the_first() -> None:
    found = shown(plan(POST_TRAINING))
    assert " model llama3 " in found["align.1.rm"]
    assert found["align.2.rm"].endswith("steps, as align.1.rm but data ranked[1..2] 100% (spec)")
    assert found["align.2.sft"].endswith("10 steps, as align.1.sft")


def test_the_round_before_is_not_the_same_round() -> None:
    found = shown(plan(POST_TRAINING))
    assert found["align.2.chat"] == (
        "average, as align.1.chat but of align.2.dpo, align.1.dpo (spec)"
    )


def test_a_stage_of_a_variant_shows_what_the_variant_changes() -> None:
    text = (
        HEAD
        + stage()
        + after(lr="last -> 0")
        + (
            "stage soup: average { of = [second, hot.second] }\n"
            "variant hot { second.lr = last -> 1e-4, second.clip = 0.5 }\n"
        )
    )
    found = shown(plan(text))
    assert found["hot.second"].endswith(
        "as second but lr last -> 0.0001 (variant hot) clip 0.5 (variant hot)"
    )


def test_a_stage_of_a_variant_in_rounds_refers_to_its_round_as_its_original_does() -> None:
    text = POST_TRAINING.replace("of = [dpo, previous.dpo or dpo]", "of = [dpo, soft.dpo]")
    found = shown(plan(text + "variant soft { align.drafts.max_tokens = 9 }\n"))
    assert found["align.2.soft.drafts"].endswith(
        "as align.2.drafts but max_tokens 9 (variant soft)"
    )
    assert found["align.2.soft.sft"].endswith("10 steps, as align.2.sft")


def test_a_stage_with_the_name_of_a_variant_is_compared_with_its_first_round() -> None:
    found = shown(plan(POST_TRAINING + "variant sft { align.sft.lr = 2e-4 }\n"))
    assert found["align.2.sft"].endswith("10 steps, as align.1.sft")
