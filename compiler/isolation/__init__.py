"""Findings in the unaffected blocks of a spec with errors."""
