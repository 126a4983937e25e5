"""The files that hold what models have written, in the results of jobs."""

DRAWS = "draws.jsonl"
"""Every answer of a draw or sample job (`sampling/job.py`)."""
ROLLOUTS = "rollouts.jsonl"
"""Every answer that a policy learns from (`sampling/rollouts.py`)."""
