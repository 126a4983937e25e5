"""A family of models is two modules and a line in the registry: nothing else knows it by name."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from lsp_files import at
from specs import HEAD, codes, only, plan, stage
from specs import jobs as train_jobs

from etude.authoring.published_models import by_name
from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import complete, weights, windowed
from etude.compiler.plan.plan import Plan
from etude.compiler.plan.plan_schema import PlanError, read_plan
from etude.lsp.completion import completion
from etude.runtime.emission import copied
from etude.runtime.emission.emit import emit
from etude.spec.record import replace

ROOT = Path(__file__).parents[3]
FOLDERS = ("spec", "compiler", "runtime", "authoring", "lsp", "cli", "pages")
ROOMS = ("compiler/families/", "runtime/engine/families/")
LLAMA = FAMILIES["llama3"]
"""Its name is also a chat protocol's, a kind of RoPE's in transformers, and the default family."""
MODEL = "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300"


@cache
def texts(path: Path) -> list[str]:
    """The constants in a module that are texts, without its docstrings."""
    tree = ast.parse(path.read_text())
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [each.value for each in constants if isinstance(each.value, str) and each not in said]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llama3"])
def test_no_module_outside_of_its_rooms_names_a_family(family: str) -> None:
    assert all((ROOT / room / f"{family}.py").is_file() for room in ROOMS)
    found = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(ROOMS) and family in texts(path)
    ]
    assert found == []


def test_the_engine_has_a_module_for_every_family_and_no_other() -> None:
    for family in FAMILIES:
        found = copied.builder(family)
        assert found.build == family
        assert {"layers", "dim", "heads", "vocab", "tied", "norm_eps", "rope"} <= {*found.takes}


def test_names_that_emitted_files_copy_are_defined_once() -> None:
    modules = [*copied.FAMILIES.glob("*.py"), copied.FRAME]
    sources = [copied.source(path) for path in modules if path.stem not in ("__init__", "on_cpu")]
    names = Counter(name for of in sources for name in of.texts if not name.isupper())
    assert [name for name, times in names.items() if times > 1] == []


SHAPES = {
    "llama3": MODEL,
    "qwen3": f"family = qwen3, {MODEL}, experts = {{ count = 4, active = 2, ffn = 32, dense = 1 }}",
    "deepseek_v2": 'family = deepseek_v2, size = "16B-A2.4B"',
    "deepseek_v3": 'family = deepseek_v3, size = "16B-A3B"',
    "gpt_oss": 'family = gpt_oss, size = "20B"',
    "decoder": 'family = decoder, size = "olmo3-7B"',
}


def emitted() -> str:
    """One file with jobs of all families, which also continue from published weights."""
    models = "".join(
        f"model of_{name} {{ {shape} }}\n" for name, shape in SHAPES.items() if name != "llama3"
    )
    stages = "".join(
        f"stage on_{name}: train {{ model = of_{name}, steps = 10, seq_len = 256, batch = 8 seqs, "
        "lr = 1e-4, data = web }\n"
        for name in SHAPES
        if name != "llama3"
    )
    text = HEAD + models + stage(batch="8 seqs", steps="10") + stages
    return emit(plan(text))


def test_one_emitted_file_holds_the_builders_of_all_families_and_reads_well(
    tmp_path: Path,
) -> None:
    assert SHAPES.keys() == FAMILIES.keys()
    file = tmp_path / "jobs.py"
    file.write_text(emitted())
    functions = [n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)]
    assert {*FAMILIES} <= {*functions}
    assert len(functions) == len({*functions})
    # Unknown and unused names, imports that are not sorted.
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,I", str(file)]
    done = subprocess.run(
        [*command, "--line-length", "100"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_an_emitted_file_holds_no_builder_of_another_family() -> None:
    text = emit(plan(HEAD + stage(batch="8 seqs", steps="10")))
    assert "def llama3(" in text
    assert not re.search("qwen3|deepseek|gpt_oss|mixture", text, re.IGNORECASE)


def test_a_family_that_is_registered_is_known_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Specs, sizes, the language server, and names of published weights."""
    other = replace(
        LLAMA,
        sizes={"9B": {**LLAMA.sizes["8B"], "layers": 40}},
        known=(replace(LLAMA.known[0], name="other-(9B)", shape={}, context=4096),),
        attention=FAMILIES["qwen3"].attention,
        windowed=lambda layer: layer > 0,
        qk_norm=True,
    )
    monkeypatch.setitem(FAMILIES, "other", other)
    job = only(
        train_jobs(plan(HEAD.replace(MODEL, 'family = other, size = "9B"') + stage(steps="10")))
    )
    assert (job.model.layers, job.model.qk_norm) == (40, True)
    own = complete("other", None, {**other.sizes["9B"], "window": 8})
    assert weights(own).attention == weights(replace(own, family="llama3")).attention + 2 * 128
    assert [windowed(own, layer) for layer in range(3)] == [False, True, True]
    assert codes(HEAD.replace(MODEL, "family = other, window = 8, " + MODEL) + stage()) == []
    offered = completion(*at(tmp_path, "model m { family = ¦ }"))
    assert "other" in [item.label for item in offered]
    found = by_name("org/Other-9B")
    assert found
    assert (found.family, found.shape, found.context) == ("other", {"size": "9B"}, 4096)


def test_a_plan_of_a_family_that_is_not_there_is_refused(tmp_path: Path) -> None:
    made: Plan = plan(HEAD + stage(steps="10"))
    data = json.loads(made.to_json())
    for job in data["jobs"]:
        if job["kind"] == "train":
            job["model"]["family"] = "llama9"
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanError, match="family `llama9`, but this version of etude has llama3"):
        read_plan(tmp_path / "plan.json")


def test_a_plan_with_a_number_that_no_int_can_hold_is_refused(tmp_path: Path) -> None:
    """JSON Schema takes 1e308 for an integer, and pydantic does not."""
    data = json.loads(plan(HEAD + stage(steps="10")).to_json())
    next(job for job in data["jobs"] if job["kind"] == "train")["steps"] = 1e308
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"not a valid plan: jobs\[\d+\]\S*steps: .*integer"):
        read_plan(tmp_path / "plan.json")
