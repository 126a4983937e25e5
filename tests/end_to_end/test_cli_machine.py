"""A recipe without a cluster runs on the GPUs of the machine, as `nvidia-smi` tells of them."""

import os
from pathlib import Path
from typing import Any

import pytest
from etude_cli import environment, etude
from specs import HEAD, stage

H100 = "NVIDIA H100 80GB HBM3"
SPEC = HEAD + "tokenizer letters { bytes }\n" + stage(batch="4 seqs")


def machine(folder: Path, names: list[str], **variables: str) -> dict[str, Any]:
    """Where a command finds an `nvidia-smi` that names so many GPUs."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "nvidia-smi"
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{name}'\n" for name in names))
    script.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"cwd": folder, "env": environment() | {"PATH": path} | variables}


@pytest.mark.parametrize(
    ("names", "variables", "said"),
    [
        ([H100] * 4, {}, f"training on 4 × {H100} of this machine; --ranks 1"),
        ([H100] * 4, {"CUDA_VISIBLE_DEVICES": "1,2"}, f"training on 2 × {H100}"),
        ([H100] * 8, {}, f"training on 4 × {H100} of this machine (4 stay idle: the batches"),
        ([H100] * 3, {}, f"training on 1 × {H100} of this machine (2 stay idle"),
    ],
)
def test_the_gpus_of_the_machine_are_taken(
    names: list[str], variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "spec.etude").write_text(SPEC)
    done = etude("run", "spec.etude", **machine(tmp_path, names, **variables))
    assert said in done.stderr
    # Here there are none after all, which is said before anything is written.
    assert done.returncode == 1
    assert "bug in etude" not in done.stderr


@pytest.mark.parametrize(
    ("names", "variables", "arguments", "cluster"),
    [
        ([], {}, [], ""),
        ([H100], {"CUDA_VISIBLE_DEVICES": ""}, [], ""),
        ([H100], {}, ["--ranks", "1"], ""),
        ([H100], {}, [], "cluster box { cpus = 1 }\n"),
    ],
)
def test_otherwise_the_recipe_decides(
    names: list[str], variables: dict[str, str], arguments: list[str], cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "spec.etude").write_text(SPEC + cluster)
    options = machine(tmp_path, names, **variables)
    done = etude("prepare", "spec.etude", *arguments, **options)
    assert (done.returncode, "of this machine" in done.stderr) == (0, False)
