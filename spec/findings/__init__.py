"""Findings about a spec: codes, their pages, diagnostics, and how they are shown and silenced."""
