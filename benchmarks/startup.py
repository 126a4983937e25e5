"""The time of `etude check` as a whole process, compared with importing lark and pydantic.

The limit is 1.3 times these two imports. Reading and binding a spec would load them: lark makes the
tables for reading specs, and pydantic has the models of plans. `check` needs neither, since the
tables are written when the grammar changes, and a check builds no plan.

    python -m benchmarks.startup [runs]

The runs alternate, so other load on the machine affects all alike; the ratio is that of the
medians. Python may keep its bytecode, as it does for users: pip compiles lark and pydantic when it
installs them, and etude's modules are compiled in the warm-up run. Writes the section "Start-up" of
benchmarks/RESULTS.md.
"""

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from .results import write_section

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "examples" / "llama3_405b.etude"
BIN = Path(sys.executable).parent
SLOW = 'python -c "import torchtitan.trainer"'
"""What torchtitan needs before it can reject an option; measured three times."""
COMMANDS = {
    'python -c "import lark, pydantic"': [sys.executable, "-c", "import lark, pydantic"],
    "etude check examples/llama3_405b.etude": [str(BIN / "etude"), "check", str(SPEC)],
    "etude plan examples/llama3_405b.etude": [str(BIN / "etude"), "plan", str(SPEC)],
    SLOW: [sys.executable, "-c", "import torchtitan.trainer"],
}


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of wall time of each command, per run; the first run warms up caches."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    for run in range(runs + 1):
        for name, command in COMMANDS.items():
            if name == SLOW and run > 3:
                continue
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if run:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def main(runs: int) -> None:
    seconds = measure(runs)
    base = median(next(iter(seconds.values())))
    rows = "\n".join(
        f"| `{name}` | {median(times):.3f} | {min(times):.3f} | {median(times) / base:.2f} |"
        for name, times in seconds.items()
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("etude", "lark", "pydantic"))
    text = (
        f"`python -m benchmarks.startup {runs}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}; {runs} alternating runs, seconds of wall time."
        "\n\n"
        "| process | median | least | ratio of medians |\n| --- | --- | --- | --- |\n"
        f"{rows}\n"
    )
    write_section("Start-up", text)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
