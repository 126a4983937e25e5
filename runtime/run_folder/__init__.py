"""All durable state of a run: artifacts, journal, metrics, and what has become of each job."""
