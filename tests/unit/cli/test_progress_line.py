"""A step's line in a pipe: at most 80 columns, with the figures that matter most."""

import io
from typing import Any

import pytest

from etude.cli.progress import COLUMNS, _Lines

STEP = {
    "event": "step",
    "job": "pretrain.1",
    "step": 514,
    "loss": 6.7441,
    "lr": 5e-3,
    "tokens": 512_000,
    "tokens_per_second": 1363.4,
}
GPU = {"mfu": 0.412, "seconds": 2.0, "data_seconds": 0.001}


def line(**more: Any) -> str:
    terminal = io.StringIO()
    _Lines(terminal)(STEP | more)
    return terminal.getvalue().rstrip("\n")


def test_a_step_on_a_cpu_shows_no_mfu() -> None:
    assert line() == "pretrain.1: step 514  loss 6.744  lr 0.005  500Ki tokens  1,363 tokens/s"


def test_mfu_is_shown_and_waiting_only_if_it_is_long() -> None:
    assert line(**GPU).endswith("1,363 tokens/s  MFU 41%")
    assert "data" not in line(**GPU)
    assert line(**GPU | {"data_seconds": 0.5}).endswith("MFU 41%  data 25%")


@pytest.mark.parametrize(
    "more",
    [
        GPU,
        GPU | {"data_seconds": 0.5, "tokens": 15_600_000_000_000, "tokens_per_second": 2.3e6},
        GPU | {"accuracy": 0.512, "margin": 0.123, "data_seconds": 0.5},
        {"job": "align.12.hot.preferences.1", "step": 1_000_000},
    ],
)
def test_a_line_has_at_most_80_columns(more: dict[str, Any]) -> None:
    shown = line(**more)
    assert len(shown) <= COLUMNS
    assert "loss 6.744" in shown
    assert "tokens/s" in shown
