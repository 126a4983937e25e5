"""Two rounds of post-training, as a user runs the example: each round makes the model better."""

import json
from pathlib import Path
from typing import Any

import pytest
from etude_cli import etude, metrics

pytestmark = pytest.mark.exhaustive  # minutes; `test_rounds` runs small rounds every time
EXAMPLE = Path(__file__).parents[2] / "examples" / "llama3_posttraining_tiny.etude"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("post_training")
    done = etude("run", EXAMPLE, "--folder", "run", cwd=folder, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return folder / "run"


def score(run: Path, stage: str) -> float:
    (found,) = json.loads((run / "models" / stage / "scores.json").read_text()).values()
    return found["score"]


def mean_of_last(run: Path, job: str, figure: str) -> float:
    values = [entry[figure] for entry in metrics(run, job)[-10:]]
    return sum(values) / len(values)


def summary(run: Path, stage: str) -> dict[str, Any]:
    return json.loads((run / "models" / stage / "summary.json").read_text())


def test_the_samples_get_better_from_round_to_round(run: Path) -> None:
    start, first, second = (score(run, f"exam_{name}") for name in ("start", "first", "second"))
    assert first > start + 0.5
    assert second > start + 1.2
    assert second > first + 0.1


def test_the_reward_model_ranks_held_out_pairs_better_in_the_second_round(run: Path) -> None:
    first, second = score(run, "ranking_first"), score(run, "ranking_second")
    assert first > 0.7
    assert second > first + 0.01


def test_dpo_learns_to_tell_the_responses_apart(run: Path) -> None:
    for number in (1, 2):
        job = f"align.{number}.dpo.1"
        assert abs(metrics(run, job)[0]["margin"]) < 1e-4  # it begins as its own reference
        assert mean_of_last(run, job, "margin") > 0.2
        assert mean_of_last(run, job, "accuracy") > 0.8


def test_the_best_of_four_is_better_than_the_mean(run: Path) -> None:
    for number in (1, 2):
        draws = [
            json.loads(line)
            for line in (run / "models" / f"align.{number}.drafts" / "draws.jsonl").open()
        ]
        assert len(draws) == 4 * 48
        assert len({draw["seed"] for draw in draws}) == len(draws)
        found = summary(run, f"align.{number}.drafts")
        assert found["kept_reward"] > found["reward"]


def test_the_exported_model_speaks_the_protocol(run: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "models" / "align.2.chat")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
