"""All durable state of a run: artifacts, journal, metrics, and the outcomes of jobs."""
