"""Checks of files that a spec names, using only names and headers."""
