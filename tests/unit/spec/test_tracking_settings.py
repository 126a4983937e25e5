"""`tracking`: one tracker, one with settings, or a list, and what of them is refused."""

import pytest

from etude.compiler.driver import analyse, compile
from etude.spec.findings.diagnostics import Diagnostic
from etude.spec.load import reads

REST = """
model small { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 512 }
tokenizer words { bytes }
dataset sums { sample = arithmetic, documents = 20 docs }
stage pre: train { model = small, steps = 10, batch = 8 seqs, lr = 1e-3, data = sums, seq_len = 64 }
"""


def spec(tracking: str) -> str:
    return f"recipe toy {{ {tracking} }}{REST}"


def planned(tracking: str) -> object:
    made = compile(analyse(reads(spec(tracking))))
    assert made
    return made.plan.model_dump(mode="json")["tracking"]


def refused(tracking: str) -> Diagnostic:
    (found,) = analyse(reads(spec(tracking))).report.ordered()
    return found


def test_a_tracker_without_settings_is_its_name_in_the_plan() -> None:
    assert planned("") is None
    assert planned("tracking = wandb") == "wandb"
    assert planned("tracking = [trackio]") == "trackio"
    assert planned("tracking = mlflow { }") == "mlflow"


def test_several_trackers_with_settings() -> None:
    given = 'wandb { project = "llama", entity = "team", group = "ablations" }'
    nothing = {"project": None, "group": None, "entity": None}
    assert planned(f"tracking = [{given}, mlflow, tensorboard]") == [
        {"kind": "wandb", "project": "llama", "group": "ablations", "entity": "team"},
        {"kind": "mlflow", **nothing},
        {"kind": "tensorboard", **nothing},
    ]


@pytest.mark.parametrize(
    ("tracking", "code", "message"),
    [
        ("[wandb, mlflow, wandb]", "E213", "`wandb` is named twice"),
        ("[]", "E202", "`tracking` is empty"),
        ('mlflow { entity = "team" }', "E308", "`mlflow` has no attribute `entity`"),
        ('wandb { project = "a/b" }', "E202", "it has '/'"),
        ('wandb { project = " " }', "E202", "it is empty"),
        (f'wandb {{ group = "{"a" * 129}" }}', "E202", "it has 129 characters"),
        ('tensorboard { project = "a" }', "E202", "this is not a tracker"),
        ("[wandb, 3]", "E202", "this is not a tracker"),
        ('mlflow { tracking_uri = "http://here" }', "E308", "no attribute `tracking_uri`"),
    ],
)
def test_what_is_no_tracker_is_refused(tracking: str, code: str, message: str) -> None:
    found = refused(f"tracking = {tracking}")
    assert found.code == code
    assert message in found.message
    assert found.help


def test_a_variant_logs_to_another_project() -> None:
    text = spec('tracking = wandb { project = "llama" }')
    text += 'variant other { recipe.tracking.project = "qwen" }\n'
    made = compile(analyse(reads(text), variant="other"))
    assert made
    assert [each.project for each in made.plan.trackers] == ["qwen"]
