"""Checking a spec looks at the folders of its weights, and says what they say otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, analysed, compiled, place, stage

from etude.spec.findings.diagnostics import Diagnostic

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 300,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
SHAPE = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"


def write(folder: Path, *, output: bytes | None = b"o", name: str = "w", **changes: Any) -> None:
    """A folder of weights: config.json, and safetensors with an embedding and perhaps an output."""
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(CONFIG | changes))
    size = 300 * 64 * 4
    tensors = {"model.embed_tokens.weight": b"e" * size}
    if output is not None:
        # Another value at the very end, behind what is equal.
        tensors["lm_head.weight"] = b"e" * (size - 1) + output
    header, offset = {}, 0
    for tensor, content in tensors.items():
        header[tensor] = {
            "dtype": "F32",
            "shape": [300, 64],
            "data_offsets": [offset, offset + len(content)],
        }
        offset += len(content)
    text = json.dumps(header).encode()
    path = folder / name / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensors.values()))


def spec(model: str = "", name: str = "w") -> str:
    context = "" if "context" in model else ", context = 8Ki"
    weights = f'model base {{ {SHAPE}{model}, weights = "{name}"{context} }}\n'
    return HEAD + weights + stage(model="base")


def check(text: str, root: Path) -> list[Diagnostic]:
    """What is found, without notes and what rules say of tiny trainings."""
    report = analysed(text, root=root).report
    return [each for each in report.ordered() if each.code in ("E542", "E543", "W676", "W677")]


def test_weights_that_are_as_the_spec_says_are_fine(tmp_path: Path) -> None:
    write(tmp_path)
    assert check(spec(), tmp_path) == []
    assert compiled(spec(), root=tmp_path)[0]


def test_a_folder_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    assert check(spec(), tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "model", "key", "write_"),
    [
        ({"num_hidden_layers": 3}, "", "num_hidden_layers 3", "layers = 3"),
        ({"vocab_size": 320}, "", "vocab_size 320", "vocab = 320"),
        ({"rms_norm_eps": 1e-6}, "", "rms_norm_eps 1e-06", "norm_eps = 1e-06"),
        ({"rope_theta": 5e5}, "", "rope_theta 500000", "rope_theta = 500000"),
        ({"head_dim": 32}, "", "head_dim 32", "head_dim = 32"),
        (
            {"tie_word_embeddings": True, "output": None},
            "",
            "tie_word_embeddings true",
            "tied = true",
        ),
        ({}, ", tied = true", "tie_word_embeddings false", "tied = false"),
        ({"max_position_embeddings": 4096}, "", "max_position_embeddings 4096", "context = 4096"),
        (
            {"model_type": "mistral", "sliding_window": 2048},
            "",
            "sliding_window 2048",
            "context = 2048",
        ),
        (
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 1024,
                }
            },
            ", rope_scaling = llama",
            "rope_scaling llama { factor = 32, original = 1024",
            "rope_scaling = llama { factor = 32, original = 1024, low = 1, high = 4 }",
        ),
        ({"model_type": "qwen3", "head_dim": 16}, "", "model_type qwen3", "family = qwen3"),
    ],
)
def test_what_is_otherwise_stands_at_its_attribute_with_what_to_write(
    changes: dict[str, Any], model: str, key: str, write_: str, tmp_path: Path
) -> None:
    write(tmp_path, **changes)
    (found,) = check(spec(model), tmp_path)
    assert found.code == "E542"
    assert key in found.message
    assert found.help == f"write `{write_}`"
    attribute = write_.partition(" ")[0]
    text = spec(model)
    line = next(line for line in text.splitlines() if line.startswith("model base"))
    written = line.find(f" {attribute} = ")
    if written >= 0:
        assert (place(found) or (0, 0))[1] - 1 >= written
    # What is written as the help says is fine.
    fixed = text.replace(line, _fixed(line, attribute, write_))
    assert check(fixed, tmp_path) == []


def _fixed(line: str, attribute: str, write_: str) -> str:
    parts = [
        part
        for part in line.removesuffix(" }").partition("{ ")[2].split(", ")
        if not part.startswith(f"{attribute} = ")
    ]
    return f"model base {{ {', '.join([*parts, write_])} }}"


def test_all_of_it_is_said_at_once(tmp_path: Path) -> None:
    write(tmp_path, num_hidden_layers=3, vocab_size=320, attention_bias=True)
    found = check(spec(), tmp_path)
    assert sorted(each.code for each in found) == ["E542", "E542", "E543"]


def test_plan_refuses_them_too(tmp_path: Path) -> None:
    write(tmp_path, num_hidden_layers=3)
    plan, report = compiled(spec(), root=tmp_path)
    assert plan is None
    assert [each.code for each in report.errors] == ["E542"]


def test_a_configuration_that_lies_about_ties_is_told_before_a_run(tmp_path: Path) -> None:
    write(tmp_path, tie_word_embeddings=True, output=b"o")
    (found,) = check(spec(", tied = true"), tmp_path)
    assert (found.code, found.severity) == ("E542", "error")
    assert "tied = false" in found.help
    (found,) = check(spec(", tied = false"), tmp_path)
    assert (found.code, found.severity) == ("W677", "warning")
    allowed = spec(', tied = false, allow W677 "checked"').replace(', allow W677 "checked"', "")
    allowed = allowed.replace(" }\nstage", ' \nallow W677 "checked" }\nstage')
    assert check(allowed, tmp_path) == []


def test_an_output_matrix_that_is_the_embedding_is_tied(tmp_path: Path) -> None:
    write(tmp_path, tie_word_embeddings=True, output=b"e")
    assert check(spec(", tied = true"), tmp_path) == []


def test_a_key_of_which_nothing_is_known_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, sandwich_norms=True)
    (found,) = check(spec(), tmp_path)
    assert (found.code, found.severity) == ("W676", "warning")
    assert "sandwich_norms" in found.message


@pytest.mark.parametrize("content", ["{", "[]", "7", "\ud800", '{"model_type": []}', "{}"])
def test_any_configuration_is_read_or_refused(content: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "w" / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    (found,) = check(spec(), tmp_path)
    assert found.code == "E543"


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7]
)
def test_broken_weights_are_left_to_the_run(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, tie_word_embeddings=True)
    (tmp_path / "w" / "model.safetensors").write_bytes(content)
    assert check(spec(", tied = true"), tmp_path) == []


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("revision", ["main", "0" * 40])
def test_weights_of_the_hub_are_looked_at_where_they_are_in_its_cache(
    variable: str, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    repository = tmp_path / below / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    text = spec().replace('weights = "w"', f'hub = "org/tiny", revision = "{revision}"')
    assert check(text, tmp_path) == []
    write(repository / "snapshots", name="0" * 40, num_hidden_layers=3)
    (found,) = check(text, tmp_path)
    assert (found.code, found.help) == ("E542", "write `layers = 3`")
    assert found.message.startswith("org/tiny/config.json has")
