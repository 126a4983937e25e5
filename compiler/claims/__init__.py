"""Published figures against the plan: the `expect` block."""
