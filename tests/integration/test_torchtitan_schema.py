"""The fields that `torchtitan = { … }` takes are torchtitan's, and reach its trainer."""

import dataclasses
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from engine_jobs import run, train_job
from torchtitan.trainer import Trainer

from etude.spec.foreign import answers
from etude.spec.schema import kinds as k
from etude.spec.schema import number_kinds as nk
from etude.spec.schema import recipe as r
from etude.spec.schema.lacking import BLOCKS

SECTIONS = r.attributes(r.Torchtitan)
HINTS = get_type_hints(Trainer.Config)
FIELDS = [
    pytest.param(section, name, id=f"{section}.{name}")
    for section, of in SECTIONS.items()
    for name in r.attributes(of.kind.model)
]
SET_BY_ETUDE = {("optimizer", "implementation"): {"for-loop", "fused_opt_states_bf16"}}
"""Choices that etude does not have: one is slow, and one rounds the moments to bf16, which no plan
knows of."""


def type_of(section: str, name: str) -> Any:
    """The type of a field, without None."""
    hint = get_type_hints(HINTS[section])[name]
    left = [each for each in get_args(hint) if each is not NoneType]
    return left[0] if NoneType in get_args(hint) else hint


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_a_field_has_torchtitans_type(section: str, name: str) -> None:
    kind = r.attributes(SECTIONS[section].kind.model)[name].kind
    theirs = type_of(section, name)
    match kind:
        case k.Flag():
            assert theirs is bool
        case k.OneOf(names=names):
            assert get_origin(theirs) is Literal
            assert {*names} == {*get_args(theirs)} - SET_BY_ETUDE.get((section, name), set())
        case k.Text(many=many):
            assert theirs == (list[str] if many else str)
        case nk.Whole():
            assert theirs is int
        case _:
            pytest.fail(f"{kind!r}")


@pytest.mark.parametrize("section", [field.name for field in dataclasses.fields(Trainer.Config)])
def test_every_other_field_is_refused_with_a_reason(section: str) -> None:
    language = {block: r.attributes(model) for model, block in BLOCKS.items()}
    if section not in SECTIONS:
        assert answers.attribute(section, "torchtitan", SECTIONS, language), section
        return
    known = r.attributes(SECTIONS[section].kind.model)
    for field in dataclasses.fields(HINTS[section]):
        if field.name not in known:
            said = answers.attribute(field.name, f"torchtitan.{section}", known, language)
            assert said, field.name


TOLD: dict[str, dict[str, Any]] = {
    "training": {
        "gc_freq": 2,
        "gc_debug": False,
        "enable_cpu_offload": False,
        "disable_cuda_graphs": True,
    },
    "parallelism": {
        "fsdp_reshard_after_forward": "never",
        "enable_fsdp_symm_mem": False,
        "enable_sequence_parallel": False,
        "pipeline_parallel_first_stage_less_layers": 0,
        "pipeline_parallel_last_stage_less_layers": 0,
    },
    "compile": {
        "enable": False,
        "components": ["model"],
        "backend": "eager",
        "enable_async_tensor_parallel": False,
    },
    "comm": {"init_timeout_seconds": 700, "train_timeout_seconds": 500, "trace_buf_size": 0},
    "debug": {
        "deterministic": False,
        "deterministic_warn_only": False,
        "detect_anomaly": True,
        "moe_force_load_balance": False,
        "spmd_typechecking": False,
        "enable_structured_logging": True,
        "print_config": False,
    },
    "optimizer": {"implementation": "foreach"},
}


def test_all_of_them_reach_the_trainer_and_change_nothing_here(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TOLD.keys() == SECTIONS.keys()
    for section, values in TOLD.items():
        assert values.keys() == r.attributes(SECTIONS[section].kind.model).keys()
    plain = train_job(steps=3)
    sections: dict[str, dict[str, Any] | None] = {
        name: {**(plain.torchtitan.get(name) or {}), **values} for name, values in TOLD.items()
    }
    configured: list[Trainer.Config] = []
    build = Trainer.Config.build

    def noted(config: Trainer.Config, *args: Any, **rest: Any) -> Any:
        configured.append(config)
        return build(config, *args, **rest)

    monkeypatch.setattr(Trainer.Config, "build", noted)
    without = run(plain, inputs, tmp_path / "plain")
    told = run(train_job(steps=3, torchtitan=sections), inputs, tmp_path / "told")
    assert [event["loss"] for event in told] == [event["loss"] for event in without]
    config = configured[-1]
    for section, values in TOLD.items():
        for name, value in values.items():
            assert getattr(getattr(config, section), name) == value, (section, name)
