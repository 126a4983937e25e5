"""Runs an answer and its tests inside the sandbox; `sandbox.py` gives this text to Python.

It reads {"code", "tests", "word", "limits"} from standard input, and writes the word if both have
run to their end without an exception.
"""

import json
import os
import resource
import sys


def main() -> None:
    given = json.loads(sys.stdin.buffer.read())
    said = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(nothing, each)
    for name, most in given["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    sys.argv = ["answer.py"]
    try:
        exec(compile(given["code"], "answer.py", "exec"), names)
        exec(compile(given["tests"], "tests.py", "exec"), names)
    except BaseException:
        os._exit(1)
    os.write(said, given["word"].encode())
    os._exit(0)


if __name__ == "__main__":
    main()
