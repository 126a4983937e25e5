"""`etude run --variant all` and `etude sweep`: shared stages are trained once."""

import json
from pathlib import Path

from etude_cli import etude

SPEC = """recipe small { seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer letters { bytes }
dataset sums { sample = arithmetic, documents = 40 docs, holdout = 10% }
stage pre: train {
  model = tiny, steps = 4, seq_len = 64, batch = 4 seqs, lr = 1e-3, data = sums
}
stage post: train { steps = 2 }
stage exam: evaluate { loss = [sums] }
variant hot { post.lr = 5e-3 }
"""


def test_variants_and_points_of_a_sweep_share_what_they_have_in_common(tmp_path: Path) -> None:
    (tmp_path / "small.etude").write_text(SPEC)
    done = etude("run", "small.etude", "--variant", "all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("1 of 2: the recipe") < done.stdout.index("2 of 2: hot")
    assert "hot, compared with small:" in done.stdout
    done = etude("sweep", "small.etude", "--over", "post.lr=5e-3,8e-3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2: sweep_lr_8e_3" in done.stdout
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if line[:1] == "|"]
    header, *points = (row for row in rows if len(row) == 4)
    assert [cell.strip() for cell in header] == [
        *("post.lr", "pre loss", "post loss", "exam loss(sums)"),
    ]
    assert [row[0].strip() for row in points] == ["5e-3", "8e-3"]
    trained = [
        event["job"]
        for journal in (tmp_path / "runs" / "small").rglob("journal.jsonl")
        for event in map(json.loads, journal.read_text().splitlines())
        if event["event"] == "started"
    ]
    # `hot` and the first point are the same, under two names.
    assert (trained.count("pre.1"), trained.count("post.1")) == (1, 3)
    report = etude("report", *(tmp_path / "runs/small/variants").iterdir(), cwd=tmp_path)
    assert report.returncode == 0, report.stderr


def test_all_is_no_name_of_a_variant_and_needs_some(tmp_path: Path) -> None:
    (tmp_path / "small.etude").write_text(SPEC.replace("variant hot { post.lr = 5e-3 }\n", ""))
    done = etude("run", "small.etude", "--variant", "all", cwd=tmp_path)
    assert done.returncode == 1
    assert "small.etude has no variants" in done.stderr
    (tmp_path / "small.etude").write_text(SPEC.replace("variant hot", "variant all"))
    done = etude("run", "small.etude", "--variant", "all", cwd=tmp_path)
    assert done.returncode == 1
    assert "`all` stands for all variants, and is also the name of one" in done.stderr
    assert not (tmp_path / "runs").exists()
