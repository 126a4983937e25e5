"""Points of a sweep are cut into parts: what the same points need is made once, before them."""

import pytest
from specs import HEAD, plan

from etude.compiler.plan.apart import strands
from etude.compiler.plan.plan import Plan

TWO = """
stage first: train {{
  model = tiny, steps = {steps}, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}}
stage second: train {{ steps = 4, lr = {lr} }}
stage report: evaluate {{ loss = [web] }}
"""


def points(*values: tuple[int, str]) -> dict[str, Plan]:
    return {f"{steps}_{lr}": plan(HEAD + TWO.format(steps=steps, lr=lr)) for steps, lr in values}


def made(of: Plan) -> list[str]:
    return [job.id for job in of.jobs if not of.aside(job)]


def test_each_job_is_in_one_part_which_waits_for_what_it_begins_with() -> None:
    plans = points((10, "1e-3"), (10, "1e-4"), (12, "1e-3"), (12, "1e-4"))
    found = {each.name: each for each in strands(plans, "sweep_shared")}
    assert list(found) == ["sweep_shared", "sweep_shared_2", "sweep_shared_3", *plans]
    assert {name: each.after for name, each in found.items()} == {
        "sweep_shared": (),
        "sweep_shared_2": ("sweep_shared",),
        "sweep_shared_3": ("sweep_shared",),
        "10_1e-3": ("sweep_shared", "sweep_shared_2"),
        "10_1e-4": ("sweep_shared", "sweep_shared_2"),
        "12_1e-3": ("sweep_shared", "sweep_shared_3"),
        "12_1e-4": ("sweep_shared", "sweep_shared_3"),
    }
    keys = [
        job.key for each in found.values() for job in each.plan.jobs if not each.plan.aside(job)
    ]
    assert sorted(keys) == sorted({job.key for plan in plans.values() for job in plan.jobs})
    assert all(each.plan.variant == name for name, each in found.items())
    assert "first.1" in made(found["sweep_shared_2"].plan)
    assert "first.1" not in made(found["10_1e-3"].plan)
    assert "second.1" in made(found["10_1e-3"].plan)


def test_points_that_are_the_same_are_one_part() -> None:
    same = {"one": plan(HEAD + TWO.format(steps=10, lr="1e-3")), **points((10, "1e-3"))}
    assert [each.name for each in strands(same, "both")] == ["both"]


def test_the_recipe_itself_is_no_variant() -> None:
    recipe = plan(HEAD + TWO.format(steps=10, lr="1e-3"))
    common, own, other = strands({"": recipe, **points((10, "1e-4"))}, "common")
    assert [each.name for each in (common, own, other)] == ["common", recipe.recipe, "10_1e-4"]
    assert [each.plan.variant for each in (common, own, other)] == ["common", None, "10_1e-4"]
    assert own.after == other.after == ("common",)


def test_no_two_parts_have_one_name() -> None:
    """A variant may be called as the recipe is, or as what several plans share."""
    recipe = plan(HEAD + TWO.format(steps=10, lr="1e-3"))
    others = list(points((10, "1e-4"), (10, "1e-5")).values())
    found = strands({"": recipe, recipe.recipe: others[0], "common": others[1]}, "common")
    assert [each.name for each in found] == [
        "common_",
        f"{recipe.recipe}_",
        recipe.recipe,
        "common",
    ]
    assert [each.plan.variant for each in found] == ["common_", None, recipe.recipe, "common"]
    assert {each.after for each in found[1:]} == {("common_",)}


@pytest.mark.parametrize("steps", [10, 12])
def test_one_point_alone_is_a_part_that_waits_for_none(steps: int) -> None:
    plans = points((steps, "1e-3"))
    (only,) = strands(plans, "sweep_shared")
    assert (only.name, only.after) == (f"{steps}_1e-3", ())
    assert made(only.plan) == [job.id for job in plans[only.name].jobs]
