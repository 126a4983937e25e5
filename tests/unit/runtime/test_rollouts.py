"""Advantages of answers, and the prompts that a window takes."""

import json
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.compiler.plan.plan import PromptWindow
from etude.runtime.errors import DataError
from etude.runtime.sampling.prompts import in_window
from etude.runtime.sampling.rollouts import LEAST_DEVIATION, advantages

REWARDS = st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=5)


@given(REWARDS, st.sampled_from(["mean", "others"]), st.sampled_from(["group", "batch", "none"]))
def test_advantages_are_what_the_papers_say(
    groups: list[list[float]], baseline: str, scale: str
) -> None:
    found = advantages(np.array(groups).reshape(-1), 4, baseline, scale).reshape(-1, 4)
    every = [reward for group in groups for reward in group]
    for group, row in zip(groups, found.tolist(), strict=True):
        for place, reward in enumerate(group):
            others = [each for other, each in enumerate(group) if other != place]
            wanted = reward - (fmean(group) if baseline == "mean" else fmean(others))
            spread = {"group": stdev(group), "batch": stdev(every), "none": None}[scale]
            if spread is not None:
                wanted /= spread + LEAST_DEVIATION
            assert row[place] == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@given(REWARDS)
def test_the_advantages_of_a_group_add_up_to_nothing(groups: list[list[float]]) -> None:
    found = advantages(np.array(groups).reshape(-1), 4, "mean", "group").reshape(-1, 4)
    assert found.sum(1) == pytest.approx(np.zeros(len(groups)), abs=1e-6)


def prompts(folder: Path, count: int) -> Path:
    lines = [json.dumps({"prompt": f"{number}?"}) + "\n" for number in range(count)]
    (folder / "prompts.jsonl").write_text("".join(lines))
    return folder / "prompts.jsonl"


def window(first: int, count: int, seed: int = 3) -> PromptWindow:
    return PromptWindow(first=first, count=count, seed=seed, longest=64)


def test_windows_in_sequence_take_every_prompt_once_an_epoch(tmp_path: Path) -> None:
    path = prompts(tmp_path, 10)
    taken = [n for first in range(0, 30, 6) for n in in_window(path, window(first, 6))]
    assert taken == in_window(path, window(0, 30))
    for epoch in range(3):
        assert Counter(taken[epoch * 10 : epoch * 10 + 10]) == Counter(range(10))
    assert taken[:10] != taken[10:20]
    assert taken != in_window(path, window(0, 30, seed=4))


def test_a_set_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompts"):
        in_window(prompts(tmp_path, 0), window(0, 2))
