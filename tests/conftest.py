"""Hypothesis: the same examples in every run, however busy the machine is.

`HYPOTHESIS_PROFILE=search` draws new ones.
"""

import os

from hypothesis import HealthCheck, settings
from stand_ins import programs as programs  # a fixture

settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, print_blob=True)
os.environ.pop("COLUMNS", None)  # xdist sets it, and commands would lay out by it
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
