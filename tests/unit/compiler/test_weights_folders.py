"""Models that leave their shape to the folder of their weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from published_configs import DEEPSEEK, GPT_OSS, LLAMA, LONGER, MISTRAL, MIXED, QWEN, SMALL
from specs import only
from weights_folders import CONFIG, TEMPLATE, write_folder

from etude.compiler.driver import Analysis, analyse, compile, compile_miniature
from etude.compiler.files.published_config import describe
from etude.compiler.passes import SOUND
from etude.compiler.plan.plan import Plan, TrainJob
from etude.lsp.project import Project
from etude.spec.findings.diagnostics import Diagnostic
from etude.spec.load import read, reads
from etude.spec.record import replace

STAGE = "steps = 2, seq_len = 64, batch = 4 seqs, lr = 1e-4"
BASE = 'model base { weights = "base" }\n'
SFT = f"""
dataset chats {{ sample = python_functions, kind = dialogs }}
stage sft: sft {{ from = base, data = chats, {STAGE} }}
"""
TRAIN = f"""
dataset web {{ sample = python_docs }}
stage more: train {{ model = base, data = web, {STAGE} }}
"""
TYPED = """
model base {
  family = llama3, layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 96, vocab = 320
  rope_theta = 5e5, rope_scaling = llama { factor = 32, original = 128 }, tied = true
  norm_eps = 1e-6, context = 512, weights = "base"
}
tokenizer base { file = "base/tokenizer.json" }
dialog base { template = "base/chat_template.jinja" }
"""


def analysed(folder: Path, text: str, **options: Any) -> Analysis:
    file = folder / "spec.etude"
    file.write_text("recipe s { seed = 1 }\n" + text)
    return analyse(read(file), root=folder, **options)


def errors(folder: Path, text: str) -> list[Diagnostic]:
    return analysed(folder, text).report.errors


def planned(folder: Path, text: str) -> Plan:
    found = analysed(folder, text)
    made = compile(found)
    assert made, [f"{d.code} {d.message}" for d in found.report.ordered()]
    return made.plan


def test_the_folder_says_what_a_spec_would_have_to_type(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    short, typed = planned(tmp_path, BASE + SFT), planned(tmp_path, TYPED + SFT)
    assert [job.key for job in short.jobs] == [job.key for job in typed.jobs]
    assert typed.files == {}


def test_the_plan_names_the_files_that_it_was_made_of(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    before = planned(tmp_path, BASE + SFT)
    names = ("chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json")
    assert sorted(before.files) == [f"base/{n}" for n in (*names, "tokenizer_config.json")]
    assert planned(tmp_path, BASE + SFT).to_json() == before.to_json()
    write_folder(tmp_path / "base", {"rope_theta": 1e6})
    after = planned(tmp_path, BASE + SFT)
    changed = {path for path, sha in after.files.items() if before.files[path] != sha}
    assert changed == {"base/config.json"}
    assert [job.key for job in after.jobs] != [job.key for job in before.jobs]


def test_every_value_has_its_file_as_origin(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    plan = planned(tmp_path, BASE + SFT)
    values = plan.values["model.base"]
    origins = {name: each.origin for name, each in values.items()}
    assert origins.pop("weights") == "spec"
    assert set(origins.values()) == {"from base/config.json"}
    assert values["rope_scaling"].value == "llama, factor 32, original 128"
    assert plan.values["tokenizer.base"]["file"].origin == "from base/tokenizer.json"
    shown = {n: (v.value, v.origin) for n, v in plan.stages["base"].values.items()}
    assert shown["model"] == (
        "llama3, 2 layers, dim 64, 4 heads (2 of keys and values), ffn 96, vocab 320",
        "from base/config.json",
    )
    assert shown["dtype"] == ("bf16", "from base/config.json")
    assert shown["end_of_text"] == ("</s>", "from base/tokenizer_config.json")
    assert shown["end_of_answer"] == ("257, 259", "from base/generation_config.json")
    assert shown["chat"] == ("base/chat_template.jinja", "from base/chat_template.jinja")
    assert plan.stages["sft"].values["rope_theta"].origin == "from base/config.json"


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        LLAMA | SMALL | {"rope_scaling": LONGER},
        QWEN,
        MIXED,
        DEEPSEEK,
        GPT_OSS,
        MISTRAL,
    ],
    ids=["Llama 3.1", "Llama 3.2", "Qwen3", "Qwen3 MoE", "DeepSeek-V3", "gpt-oss", "Mistral"],
)
def test_the_shape_is_that_of_config_json_in_every_family(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    spec = _written(tmp_path, f"{BASE}tokenizer t {{ bytes }}\n{TRAIN}")
    found = analyse(read(spec), passes=SOUND)
    assert found.program, [d.message for d in found.report.ordered()]
    described = describe(config)
    assert found.program.stages["base"].model == described.model
    assert found.program.recipe.models["base"].context == described.longest


def _written(folder: Path, text: str) -> Path:
    file = folder / "spec.etude"
    file.write_text("recipe s { seed = 1 }\n" + text)
    return file


def test_what_a_spec_writes_has_to_agree(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    for wrong, theirs, ours in (
        ("layers = 3", "num_hidden_layers 2", "3"),
        ("heads = 7", "num_attention_heads 4", "7"),
        ("rope_theta = 1e4", "rope_theta 500000", "10000"),
        ("rope_scaling = none", "rope_scaling llama { factor = 32", "none"),
        ("tied = false", "tie_word_embeddings true", "false"),
        ("family = qwen3", "describes a llama3", "the family qwen3"),
        ("context = 1Ki", "max_position_embeddings 512", "1024"),
    ):
        (found,) = errors(tmp_path, f'model base {{ weights = "base", {wrong} }}\n{SFT}')
        assert found.code == "E542"
        assert theirs in found.message
        assert ours in found.message.partition(", but")[2]
        assert found.span
        assert found.span.text == wrong.partition(" = ")[2]
    right = "layers = 2, heads = 4, context = 256, family = llama3"
    plan = planned(tmp_path, f'model base {{ weights = "base", {right} }}\n{SFT}')
    assert plan.values["model.base"]["layers"].origin == "spec"
    assert plan.values["model.base"]["context"].value == "256"


def test_only_the_context_comes_from_the_folder_if_the_spec_has_the_shape(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    plan = planned(tmp_path, TYPED.replace("context = 512, ", "") + SFT)
    assert plan.jobs[0].key == planned(tmp_path, TYPED + SFT).jobs[0].key
    assert plan.values["model.base"]["context"].origin == "from base/config.json"
    assert plan.values["model.base"]["layers"].origin == "spec"


UNUSABLE = [
    ("missing", lambda at: None, "E548", "does not exist", "hf download"),
    ("a file", lambda at: at.write_text("x"), "E548", "is a file, not a folder", "weights"),
    ("empty", lambda at: at.mkdir(), "E548", "has no config.json", "download the weights"),
    (
        "no JSON",
        lambda at: write_folder(at).joinpath("config.json").write_text("{"),
        "E548",
        "base/config.json is not JSON",
        "download",
    ),
    (
        "broken beside it",
        lambda at: write_folder(at).joinpath("tokenizer_config.json").write_text("[1]"),
        "E548",
        "base/tokenizer_config.json is not a JSON object",
        "download",
    ),
    (
        "Llama 4",
        lambda at: write_folder(at, {"model_type": "llama4_text"}),
        "E543",
        "no family here has its kind of experts",
        "the nearest that works is qwen3_moe, such as Qwen3 30B-A3B",
    ),
    (
        "unknown, with code of its own",
        lambda at: write_folder(at, {"model_type": "mine", "auto_map": {"AutoConfig": "x.Y"}}),
        "E543",
        "the code that comes with it is never run",
        "these model types work: llama, mistral",
    ),
    (
        "unknown, with a name like a known one",
        lambda at: write_folder(at, {"model_type": "gemma2x"}),
        "E543",
        "is of the model_type gemma2x",
        "the nearest by its name is gemma2; these model types work",
    ),
    (
        "known, with code of its own that computes something else",
        lambda at: write_folder(at, {"auto_map": {"AutoModelForCausalLM": "modeling_x.Mine"}}),
        "E543",
        "says that the code modeling_x.Mine computes the model",
        "remove `auto_map` from config.json",
    ),
    (
        "a reward model, with code of its own that computes something else",
        lambda at: write_folder(
            at,
            {
                "architectures": ["LlamaForSequenceClassification"],
                "id2label": {"0": "LABEL_0"},
                "auto_map": {"AutoModelForSequenceClassification": "modeling_x.LlamaOfGates"},
            },
        ),
        "E543",
        "says that the code modeling_x.LlamaOfGates computes the model",
        "remove `auto_map` from config.json",
    ),
    (
        "another activation",
        lambda at: write_folder(at, {"hidden_act": "gelu"}),
        "E543",
        "hidden_act = gelu",
        "use weights without it",
    ),
]


@pytest.mark.parametrize(
    ("make", "code", "message", "help"),
    [each[1:] for each in UNUSABLE],
    ids=[u[0] for u in UNUSABLE],
)
def test_a_folder_that_says_nothing_is_one_finding_with_a_way_out(
    make: Any, code: str, message: str, help: str, tmp_path: Path
) -> None:
    make(tmp_path / "base")
    (found,) = errors(tmp_path, BASE + SFT)
    assert (found.code, found.span and found.span.text) == (code, '"base"')
    assert message in found.message
    assert help in found.help


def test_code_for_a_model_that_transformers_has_too_changes_nothing(tmp_path: Path) -> None:
    """As in the repository of DeepSeek-V3, whose code has transformers' name."""
    write_folder(tmp_path / "base")
    before = planned(tmp_path, BASE + SFT)
    ours = {"AutoConfig": "configuration_x.C", "AutoModelForCausalLM": "me/it--x.LlamaForCausalLM"}
    write_folder(tmp_path / "base", {"auto_map": ours})
    assert [job.key for job in planned(tmp_path, BASE + SFT).jobs] == [
        job.key for job in before.jobs
    ]


def test_code_that_is_not_run_is_noted_once(tmp_path: Path) -> None:
    """Under the name of transformers' class it may have been changed, and nobody would see it."""
    ours = {
        "AutoConfig": "configuration_x.C",
        "AutoModelForCausalLM": "modeling_x.LlamaForCausalLM",
    }
    write_folder(tmp_path / "base", {"auto_map": ours})
    (found,) = [
        each for each in analysed(tmp_path, BASE + SFT).report.ordered() if each.code == "N671"
    ]
    assert (found.severity, found.span and found.span.text) == ("note", '"base"')
    assert "the code modeling_x.LlamaForCausalLM computes the model" in found.message
    assert "what transformers' own llama does" in found.help
    write_folder(tmp_path / "base", {"auto_map": {"AutoConfig": "configuration_x.C"}})
    assert "N671" not in [each.code for each in analysed(tmp_path, BASE + SFT).report.ordered()]


WRONG = [
    (BASE, {"hidden_act": "gelu"}, ["E494", "E543"]),
    (BASE.replace("{", "{ layers = 4,"), {}, ["E494", "E542"]),
    (TYPED.replace("layers = 2", "layers = 4"), {}, ["E494", "E542"]),
    (TYPED, {"hidden_act": "gelu"}, ["E494", "E543"]),
    (TYPED, {}, ["E494"]),
]


@pytest.mark.parametrize(("model", "config", "codes"), WRONG)
def test_missing_weights_hide_nothing_of_the_configuration(
    model: str, config: dict[str, Any], codes: list[str], tmp_path: Path
) -> None:
    write_folder(tmp_path / "base", config, weights=False)
    assert sorted(each.code for each in errors(tmp_path, model + SFT)) == codes


BLOOM: dict[str, Any] = {
    "model_type": "bloom",
    "architectures": ["BloomForCausalLM"],
    "hidden_size": 64,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 320,
    "tie_word_embeddings": True,
}
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": 320,
}


@pytest.mark.parametrize("config", [BLOOM | {"seq_length": 128}, GPT2], ids=["ALiBi", "learned"])
def test_a_folder_without_rotary_positions_says_everything(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    write_folder(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    plan = planned(tmp_path, BASE + SFT)
    job = next(job for job in plan.jobs if isinstance(job, TrainJob))
    assert job.model.parts
    assert job.model.parts.published == config["model_type"]
    assert plan.values["model.base"]["context"].value == "128"


def test_a_model_without_an_end_of_its_positions_needs_a_context(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps(BLOOM))
    (found,) = errors(tmp_path, BASE + SFT)
    assert found.code == "E417"
    assert "lacks `context`: base/config.json says no seq_length" in found.message
    planned(tmp_path, BASE.replace("{", "{ context = 128,") + SFT)


def test_weights_elsewhere_need_the_shape_or_a_folder(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, BASE.replace('weights = "base"', 'hub = "me/base"') + SFT)
    assert found.code == "E417"
    assert "hf download me/base --local-dir weights/base" in found.help
    (found,) = errors(tmp_path, BASE.replace('"base"', '"s3://bucket/base"') + SFT)
    assert (found.code, "in a store" in found.message) == ("E417", True)


def test_without_a_template_the_tokens_of_the_tokenizer_decide(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", template=None)
    assert planned(tmp_path, BASE + SFT).stages["sft"].values["dialog"].value == "chatml"
    write_folder(tmp_path / "other", template=None, tokens=["<|start_header_id|>", "<|eot_id|>"])
    other = planned(tmp_path, BASE.replace('"base"', '"other"') + SFT)
    assert other.stages["sft"].values["dialog"].value == "llama3"
    write_folder(tmp_path / "none", template=None, tokens=())
    (found,) = errors(tmp_path, BASE.replace('"base"', '"none"') + SFT)
    assert found.code == "E549"
    own = 'dialog own { header = "<{role}>", end_of_turn = "</s>" }\n'
    planned(tmp_path, BASE.replace('"base"', '"none"') + own + SFT)


def test_a_template_may_be_in_the_settings_of_the_tokenizer(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", template=None, settings={"chat_template": TEMPLATE})
    job = next(job for job in planned(tmp_path, BASE + SFT).jobs if job.kind == "dataset")
    assert job.dialog == {"template": "base/tokenizer_config.json"}


def test_two_models_with_one_tokenizer_share_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    write_folder(tmp_path / "other")
    soup = SFT + 'model other { weights = "other" }\nstage soup: average { of = [sft, other] }\n'
    plan = planned(tmp_path, BASE + soup)
    assert [name for name in plan.values if name.startswith("tokenizer")] == ["tokenizer.base"]
    write_folder(tmp_path / "other", tokens=["<|im_start|>", "<|im_end|>", "<|more|>"])
    both = SFT + f'model other {{ weights = "other" }}\n{SFT.replace("sft:", "sft2:")}'.replace(
        "from = base, data = chats", "from = other, data = chats"
    ).replace("dataset chats { sample = python_functions, kind = dialogs }", "")
    plan = planned(tmp_path, BASE + SFT + both.partition(SFT)[2])
    assert "tokenizer.other" in plan.values


def test_separate_matrices_are_kept_though_the_configuration_ties_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "base")
    data = bytes(range(256)) * 2
    header = {
        name: {"dtype": "BF16", "shape": [2, 64], "data_offsets": [256 * at, 256 * at + 256]}
        for at, name in enumerate(("model.embed_tokens.weight", "lm_head.weight"))
    }
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + b"\0" * 256 + data[:256]
    (folder / "model.safetensors").write_bytes(whole)
    found = analysed(tmp_path, BASE + SFT)
    assert found.program
    assert not found.program.stages["base"].model.tied
    assert "W677" in [d.code for d in found.report.ordered()]


def test_the_miniature_is_of_the_folder_s_shape(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", {"model_type": "qwen3", "head_dim": 32, "rope_scaling": None})
    found = analysed(tmp_path, BASE + SFT, passes=SOUND)
    made = compile_miniature(found)
    assert made, [d.message for d in found.report.ordered()]
    (job,) = [j for j in made.plan.jobs if isinstance(j, TrainJob) and j.stage == "sft"]
    assert (job.model.family, job.model.heads * job.model.head_dim > job.model.dim) == (
        "qwen3",
        True,
    )


def test_editors_see_the_values_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "base")
    file = _written(tmp_path, BASE + SFT)
    project = Project()
    analysis = only(project.analyses(file))
    assert analysis.program
    assert analysis.program.stages["base"].model.layers == 2
    assert analysis.origins["model.base", "layers"].text == "from base/config.json"
    write_folder(tmp_path / "base", {"num_hidden_layers": 3})
    project.forget()
    analysis = only(project.analyses(file))
    assert analysis.program
    assert analysis.program.stages["base"].model.layers == 3


def test_a_text_without_a_folder_reads_no_file() -> None:
    found = analyse(reads("recipe s { seed = 1 }\n" + BASE + SFT))
    assert {d.code for d in found.report.errors} == {"E417"}


def test_the_shape_that_is_compared_is_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", {"tie_word_embeddings": False})
    found = analysed(tmp_path, BASE + SFT)
    described = describe(CONFIG | {"tie_word_embeddings": False}).model
    assert found.program
    assert described
    assert found.program.stages["base"].model == replace(described, tied=False)
