"""Lowers stages to jobs of the plan."""
