"""`etude import` as users call it."""

import json
from pathlib import Path

from etude_cli import TINY, etude

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_an_imported_file_is_checked_and_never_overwritten(tmp_path: Path) -> None:
    source = CONFIGS / "nanotron_tiny.yaml"
    first = etude("import", source, "-o", "new.etude", cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "")
    assert "next: etude check new.etude" in first.stderr
    assert "model.init_method.std" in first.stderr
    assert etude("check", "new.etude", cwd=tmp_path).returncode == 0
    text = (tmp_path / "new.etude").read_text()
    again = etude("import", CONFIGS / "torchtitan_8b.toml", "-o", "new.etude", cwd=tmp_path)
    assert again.returncode == 1
    assert "new.etude already exists" in again.stderr
    assert (tmp_path / "new.etude").read_text() == text
    forced = etude(
        "import", CONFIGS / "torchtitan_8b.toml", "-o", "new.etude", "--force", cwd=tmp_path
    )
    assert forced.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new.etude"]


def test_a_stage_goes_on_from_a_spec_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    done = etude(
        "import",
        CONFIGS / "axolotl_liger_fsdp.yaml",
        "--after",
        "tiny.etude",
        "--gpus",
        "2",
        "--size",
        "finetome_100k=2M",
        "-o",
        "sft.etude",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    checked = etude("check", "sft.etude", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    plan = json.loads(etude("plan", "sft.etude", "--json", cwd=tmp_path).stdout)
    assert plan["stages"]["sft"]["goes_on_from"] == "anneal"


def test_standard_input_and_json(tmp_path: Path) -> None:
    text = (CONFIGS / "axolotl_reward.yaml").read_text()
    done = etude("import", "-", "--json", cwd=tmp_path, input=text)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "axolotl"
    assert "stage reward: reward {" in found["spec"]
    assert "base_model" not in {finding["key"] for finding in found["lost"]}
    assert all(finding["reason"] for finding in found["irrelevant"])


def test_what_goes_wrong_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("model: {}\nlist: [\n")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "bad.etude").write_text("recipe x { seed = many }")
    wrong = [
        (("broken.yaml",), "broken.yaml:3: this is not YAML", 1),
        (("latin.yaml",), "latin.yaml is not UTF-8 text (line 2)", 1),
        (("nowhere.yaml",), "nowhere.yaml cannot be read: no such file", 1),
        ((tmp_path,), "cannot be read: is a directory", 1),
        ((CONFIGS / "axolotl_sft.yaml", "--after", "bad.etude"), "error[E201]", 1),
        ((CONFIGS / "axolotl_sft.yaml", "--after", "../x.etude"), "is not in the folder", 1),
        ((CONFIGS / "axolotl_sft.yaml", "--after", "none.etude"), "E124", 1),
        ((CONFIGS / "axolotl_sft.yaml", "-o", "no/where.etude"), "cannot be written", 1),
        ((CONFIGS / "axolotl_sft.yaml", "--size", "alpaca=lots"), "this is not NAME=COUNT", 2),
        ((CONFIGS / "axolotl_sft.yaml", "--from", "torchtitan"), "it looks like axolotl", 1),
    ]
    for arguments, message, code in wrong:
        done = etude("import", *arguments, cwd=tmp_path)
        assert done.returncode == code, (arguments, done.stderr)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert "bug in etude" not in done.stderr
        assert done.stdout == ""
