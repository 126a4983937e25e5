"""Checks everything that a run needs before its first job."""
