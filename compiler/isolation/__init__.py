"""Findings about the other blocks of a spec with errors."""
