"""`etude run SPEC --ranks 2` with the worker of `gang_worker`; its argument is the spec."""

import sys

from etude.cli.main import main
from etude.runtime.launchers import launcher

if __name__ == "__main__":
    launcher.WORKER = "gang_worker"
    sys.exit(main(["run", sys.argv[1], "--ranks", "2"]))
