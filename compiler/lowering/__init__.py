"""Stages to jobs of the plan."""
