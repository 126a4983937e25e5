"""`etude export`: the model of any stage, from a run folder into a folder of its own."""

from pathlib import Path

import pytest
import torch
from etude_cli import TINY, etude
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

SHORT = TINY.replace("steps   = 24", "steps   = 12").replace("for 12 steps", "for 6 steps")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has come as far as `anneal`; `report` is left."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "tiny.etude").write_text(SHORT)
    done = etude("run", "tiny.etude", "--until", "anneal", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if "manifest" not in path.name
    }


def test_it_is_what_the_run_exports(place: Path) -> None:
    done = etude("export", "runs/tiny", "anneal", "--to", "mine", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "exported: mine\n"
    assert files(place / "mine") == files(place / "runs" / "tiny" / "models" / "anneal")


def test_a_stage_that_another_continues_from_is_exported_too(place: Path) -> None:
    done = etude("export", "runs/tiny", "pretrain", "--to", "deep/base", cwd=place)
    assert done.returncode == 0, done.stderr
    model = AutoModelForCausalLM.from_pretrained(place / "deep" / "base")
    assert model.config.max_position_embeddings == 64
    assert len(AutoTokenizer.from_pretrained(place / "deep" / "base")) == 300
    first = load_file(place / "deep" / "base" / "model.safetensors")
    assert any(
        not torch.equal(tensor, first[name])
        for name, tensor in load_file(place / "mine" / "model.safetensors").items()
    )
    short = etude("export", "runs/tiny", "pretrain.1", "--to", "first", cwd=place)
    assert short.returncode == 0, short.stderr
    assert '"max_position_embeddings": 32' in (place / "first" / "config.json").read_text()


def test_in_bf16_it_is_half_as_large_and_rounded(place: Path) -> None:
    done = etude("export", "runs/tiny", "anneal", "--to", "half", "--dtype", "bf16", cwd=place)
    assert done.returncode == 0, done.stderr
    whole = load_file(place / "mine" / "model.safetensors")
    half = load_file(place / "half" / "model.safetensors")
    assert whole.keys() == half.keys()
    for name, tensor in half.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, whole[name].bfloat16())
    assert '"dtype": "bfloat16"' in (place / "half" / "config.json").read_text()
    full = etude("export", "runs/tiny", "anneal", "--to", "full", "--dtype", "fp32", cwd=place)
    assert full.returncode == 0, full.stderr
    assert files(place / "full") == files(place / "mine")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("anneal", "--to", "mine"), 1, "mine already exists"),
        (("anneal", "--to", "tiny.etude/in"), 1, "cannot be written"),
        (("aneal", "--to", "new"), 2, "did you mean `anneal`?"),
        (("report", "--to", "new"), 2, "a part of a plan without `report`"),
    ],
)
def test_what_cannot_be_exported_is_one_message(
    arguments: tuple[str, ...], code: int, said: str, place: Path
) -> None:
    (place / "mine").mkdir(exist_ok=True)
    (place / "mine" / "config.json").touch()
    done = etude("export", "runs/tiny", *arguments, cwd=place)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "new").exists()


def test_a_stage_that_is_not_finished_says_what_makes_it(place: Path) -> None:
    (place / "more.etude").write_text(SHORT + "stage last_one: train { steps = 2, lr = 1e-4 }\n")
    done = etude("prepare", "more.etude", "--folder", "runs/tiny", cwd=place)
    assert done.returncode == 0, done.stderr
    done = etude("export", "runs/tiny", "last_one", "--to", "new", cwd=place)
    assert done.returncode == 1
    assert "last_one.1 is not finished in runs/tiny" in done.stderr
    assert "etude run SPEC --until last_one" in done.stderr
