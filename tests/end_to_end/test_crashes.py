"""Runs that are killed at random moments, and end with the bits of an undisturbed run.

`make crashes` does the same hundreds of times, with stages of every kind.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes import RECIPES, Harness
from etude_cli import environment
from forking import Forking

FEW = """
recipe few { seed = 5 }
model tiny { layers = 1, dim = 16, heads = 2, kv_heads = 2, ffn = 32 }
tokenizer words { train = { on [corpus], vocab 280 } }
dataset corpus { sample = arithmetic, documents = 100, holdout = 5% }
dataset human  { files = "dialogs.jsonl", kind = dialogs }
dataset asked  { files = "prompts.jsonl", kind = prompts }

stage pretrain: train {
  model = tiny, data = corpus, steps = 12, seq_len = 64, batch = 4 seqs, lr = 3e-3
  checkpoint every 2 steps
  average = polyak every 2 steps over 50%
}
stage start: sft { data = human, steps = 4, batch = 8 seqs, lr = 3e-3 }
stage drafts: sample { from = start, prompts = asked, max_tokens = 4 }
stage soup: average { of = [pretrain, start] }
stage report: evaluate { from = soup, loss = [corpus] }
"""


# Gradients of so small a model are noisy: it goes back several times.
ROLLING = """
recipe rolling { seed = 5 }
model tiny { layers = 1, dim = 16, heads = 2, kv_heads = 2, ffn = 32 }
tokenizer words { train = { on [corpus], vocab 280 } }
dataset corpus { sample = arithmetic, documents = 100, holdout = 5% }
stage pretrain: train {
  model = tiny, data = corpus, steps = 60, seq_len = 64, batch = 4 seqs, lr = 3e-3
  spikes = { do = rollback, above = 1.43, back = 4, at_most = 40 }
}
stage more: train { steps = 20 }
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Forking]:
    with Forking(environment()) as started:
        yield started


def test_killed_three_times_it_ends_with_the_same_bits(server: Forking, tmp_path: Path) -> None:
    trial = Harness(server, tmp_path, FEW).trial(seed=0, kills=3)
    assert len(trial.kills) == 3
    assert not trial.wrong


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_ten_times_all_kinds_of_stages_end_with_the_same_bits(
    ranks: int, recipe: str, server: Forking, tmp_path: Path
) -> None:
    harness = Harness(server, tmp_path, RECIPES[recipe], ranks=ranks)
    trial = harness.trial(seed=ranks, kills=10)
    assert len(trial.kills) == 10
    assert not trial.wrong


@pytest.mark.exhaustive
def test_killed_while_it_goes_back_at_spikes_it_ends_with_the_same_bits(
    server: Forking, tmp_path: Path
) -> None:
    harness = Harness(server, tmp_path, ROLLING)
    told = (tmp_path / "undisturbed" / "run" / "journal.jsonl").read_text()
    assert told.count('"rollback"') > 1
    for seed in (0, 1):
        trial = harness.trial(seed, kills=4)
        assert len(trial.kills) == 4
        assert not trial.wrong
