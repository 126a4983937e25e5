"""The engine is imported beside other work, and says nothing meanwhile."""

import subprocess
import sys


def test_an_import_says_nothing_to_the_terminal() -> None:
    code = "from etude.runtime.imports import engine; engine('cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
