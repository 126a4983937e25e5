"""Whatever config.json holds, it is read or refused, and compared with a model."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import published
from etude.compiler.files.published_config import describe
from etude.compiler.files.published_keys import FIXED, KINDS, SHAPE
from etude.compiler.files.published_weights import differences

ROPE = (
    "rope_type",
    "type",
    "factor",
    "rope_theta",
    "original_max_position_embeddings",
    "beta_fast",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "mscale",
    "truncate",
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["yarn", "llama3", "default", "sliding_attention", "full_attention"])
)
values = (
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(
        st.sampled_from(ROPE), scalars | st.dictionaries(st.text(max_size=2), scalars, max_size=1)
    )
)
FIXED_OF = (kind.fixed for family in FAMILIES.values() for kind in family.kinds.values())
keys = st.sampled_from(sorted({*SHAPE, *FIXED, *(key for fixed in FIXED_OF for key in fixed)}))


@given(kind=st.sampled_from(sorted(KINDS)), config=st.dictionaries(keys, values, max_size=6))
def test_any_configuration_is_described_or_refused(kind: str, config: dict[str, Any]) -> None:
    found = describe({"model_type": kind} | config)
    assert all(problem.message and problem.help for problem in found.problems)
    if found.model:
        ours = published(found.family, next(iter(_SIZES[found.family])))
        assert all(each.write for each in differences(found.model, ours))
    else:
        assert found.problems


_SIZES = {
    "llama3": ["8B"],
    "qwen3": ["8B"],
    "deepseek_v2": ["236B"],
    "deepseek_v3": ["671B"],
    "gpt_oss": ["20B"],
    "decoder": ["olmo3-7B"],
}


@given(kind=values)
def test_any_kind_is_known_or_refused(kind: Any) -> None:
    assert describe({"model_type": kind}).problems


def test_every_family_is_tried() -> None:
    assert set(_SIZES) == set(FAMILIES)
