"""Every decoder of transformers is read, or listed with the reason why not."""

import json
from pathlib import Path
from typing import Any

import pytest
from published_configs import DEEPSEEK, DEEPSEEK_V2, GPT_OSS, MISTRAL, QWEN
from published_configs import MIXED as QWEN_MOE
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from etude.compiler.families import FAMILIES
from etude.compiler.families.decoder_computed import COMPUTED
from etude.compiler.families.decoder_config import APART, CLASSES
from etude.compiler.families.mixed_computed import MIXED
from etude.compiler.files.published_config import describe
from etude.compiler.files.published_keys import KINDS
from etude.compiler.files.unread_kinds import DENSE, OTHERS, SAME, UNREAD
from etude.compiler.values import Architecture
from etude.runtime.engine.weights.convert import check_config

LISTED = [kind for kinds in OTHERS.values() for kind in kinds]


def test_every_kind_is_in_one_list() -> None:
    known = [*KINDS, *DENSE, *LISTED, *SAME]
    assert len(known) == len({*known})
    assert {*known} == {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    assert all(AutoConfig.for_model(name).model_type == kind for name, kind in SAME.items())


def test_what_is_not_read_is_refused_with_its_reason() -> None:
    for kind, why in UNREAD.items():
        (problem,) = describe({"model_type": kind}).problems
        assert why in problem.message


def test_classes_are_those_of_transformers() -> None:
    decoder = FAMILIES["decoder"]
    for kind in decoder.kinds.keys() & {*COMPUTED, *MIXED}:
        classes = APART.get(kind, {})
        usual = {end: CLASSES[kind] + end for end in ("ForCausalLM", "ForSequenceClassification")}
        causal, scored = (classes.get(end, name) for end, name in usual.items())
        assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] == causal
        theirs = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(kind)
        assert theirs == (None if kind in decoder.unscored else scored), kind


def test_what_has_experts_is_no_dense_decoder() -> None:
    for kind in DENSE:
        of = AutoConfig.for_model(kind).to_dict()
        counted = [name for name in of if name.startswith(("num_experts", "num_local_experts"))]
        # Doge and Gemma 4 have experts on request, and none by default.
        assert not counted or kind in ("doge", "gemma4_text")


def test_code_with_the_name_of_its_kind_is_that_of_transformers() -> None:
    """Folders of these kinds may bring a copy of it; a class with another name is refused."""
    for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if kind in KINDS and name != "LlamaForCausalLM":
            found = describe(
                {"model_type": kind, "auto_map": {"AutoModelForCausalLM": f"x.{name}"}}
            )
            assert "auto_map" not in {each.key for each in found.problems}, kind
    found = describe({"model_type": "gemma2", "auto_map": {"AutoModelForCausalLM": "x.Gemma3"}})
    assert "auto_map" in {each.key for each in found.problems}


EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1}
NEEDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": EXPERTS,
    "dots1": EXPERTS,
    "dbrx": {"attn_config": {"clip_qkv": 8.0}},
}
"""What the defaults lack."""
PUBLISHED: list[dict[str, Any]] = [DEEPSEEK, DEEPSEEK_V2, GPT_OSS, MISTRAL, QWEN, QWEN_MOE]
USUAL: list[dict[str, Any]] = [
    {"model_type": kind, **NEEDED.get(kind, {})} for kind in sorted(KINDS)
]


@pytest.mark.parametrize("config", [*USUAL, *PUBLISHED], ids=lambda config: config["model_type"])
def test_a_run_takes_what_check_has_read(config: dict[str, Any], tmp_path: Path) -> None:
    """With transformers' defaults, of which some are null: a GPT-2 implies the width of its layers,
    and a Nemotron its heads of keys."""
    kind = config["model_type"]
    for given in (config, AutoConfig.for_model(**config).to_dict() | {"model_type": kind}):
        (tmp_path / "config.json").write_text(json.dumps(given))
        found = describe(given)
        assert found.model, found.problems
        model = Architecture(**vars(found.model), context=found.longest)
        check_config(model, tmp_path, "m", output=None if found.model.tied else True)
