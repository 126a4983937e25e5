"""A plan as a page for people: one file that needs nothing else."""
