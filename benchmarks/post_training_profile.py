"""Where post-training spends its time: python -m benchmarks.post_training_profile.

The stages of `benchmarks.post_training`, in etude and in TRL, with each step after the first few
under torch's profiler; self time of operators by category, in milliseconds per pair (for SFT, per
thousand tokens). The rest of the wall time is Python, data and waiting. Writes the section
"Post-training, profiled".
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import post_training as p
from .results import write_section

GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("scaled_dot_product", "flash_attention", "_efficient_attention"),
    "embedding and indexing": (
        "embedding",
        "index",
        "gather",
        "scatter",
        "aten::cat",
        "aten::copy_",
        "aten::fill_",
        "aten::zero_",
    ),
    "optimizer": ("_foreach", "_fused_adam", "aten::lerp_", "aten::addcdiv_", "aten::addcmul_"),
}
OTHER, REST = "elementwise and sums", "outside of operators"

Found = dict[str, dict[str, float]]


class Profiler:
    """Sums the operators of the steps of each stage."""

    def __init__(self) -> None:
        self.found: Found = {}
        self.running: Any = None
        self.began = 0.0

    def start(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self.running = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self.running.__enter__()
        self.began = time.perf_counter()

    def stop(self, stage: str, work: float) -> None:
        """Ends the profile of a stage that processed `work` units of work."""
        wall = time.perf_counter() - self.began
        self.running.__exit__(None, None, None)
        times: dict[str, float] = {}
        for event in self.running.key_averages():
            if not event.key.startswith("aten::"):
                continue
            group = next(
                (g for g, parts in GROUPS.items() if any(part in event.key for part in parts)),
                OTHER,
            )
            times[group] = times.get(group, 0.0) + event.self_cpu_time_total / 1e6
        times[REST] = wall - sum(times.values())
        self.found[stage] = {group: 1000 * seconds / work for group, seconds in times.items()}
        self.running = None


def run_etude(folder: Path) -> Found:
    import etude

    profiler = Profiler()
    work = 0.0

    def on_event(event: dict[str, Any]) -> None:
        nonlocal work
        if event["event"] != "step" or event["stage"] not in p.UNITS:
            return
        if event["step"] == p.WARM:
            work = 0.0
            profiler.start()
            return
        if profiler.running:
            sft = event["stage"] == "sft"
            work += p.ROWS * p.SEQ_LEN / 1000 if sft else event["sequences"]
            if event["step"] == p.STEPS - 1:
                profiler.stop(event["stage"], work)

    plan = etude.compile(etude.load(folder / "bench.etude"))
    etude.run(plan, folder / "run", root=folder, on_event=on_event)
    return profiler.found


def run_trl(folder: Path) -> Found:
    from transformers import TrainerCallback

    profiler = Profiler()
    stages = iter(p.UNITS)
    stage = ""

    class Watch(TrainerCallback):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal stage
            if state.global_step == 0:
                stage = next(stages)
            self.inner.on_step_begin(args, state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.tokens = getattr(self, "tokens", 0) + self.inner.tokens
            self.inner.on_step_end(args, state, control)
            if state.global_step == p.WARM:
                self.tokens = 0
                profiler.start()
            elif profiler.running and state.global_step == p.STEPS - 1:
                steps = p.STEPS - 1 - p.WARM
                sft = stage == "sft"
                profiler.stop(stage, self.tokens / 1000 if sft else steps * p.PAIRS)

    p.run_trl(folder, watch=Watch)
    return profiler.found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        p.make_data(folder)
        found = {}
        for who in ("etude", "trl"):
            command = [sys.executable, "-m", "benchmarks.post_training_profile", who, name]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[who] = json.loads(output.stdout.splitlines()[-1])
    lines = ["| | stage | etude | TRL |", "| --- | --- | ---: | ---: |"]
    for stage, unit in p.UNITS.items():
        for group in (*GROUPS, OTHER, REST):
            ours, theirs = (found[who][stage].get(group, 0.0) for who in ("etude", "trl"))
            lines.append(f"| {stage} | {group} | {ours:.2f} | {theirs:.2f} |")
        ours, theirs = (sum(found[who][stage].values()) for who in ("etude", "trl"))
        each = "1000 tokens" if unit == "tokens/s" else "pair"
        lines.append(f"| **{stage}** | **ms a {each}** | **{ours:.2f}** | **{theirs:.2f}** |")
    versions = ", ".join(
        f"{n} {version(n)}" for n in ("torch", "torchtitan", "trl", "transformers")
    )
    write_section(
        "Post-training, profiled",
        f"`python -m benchmarks.post_training_profile` on {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}; milliseconds of self time under torch's "
        f"profiler, which slows both.\n\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        place = Path(sys.argv[2])
        measured = run_etude(place) if sys.argv[1] == "etude" else run_trl(place)
        if sys.argv[1] == "etude":
            p._expose_start(place)
        print(json.dumps(measured))
    else:
        main()
