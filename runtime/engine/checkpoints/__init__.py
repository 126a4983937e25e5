"""Checkpoints: what is written, read, checked, and kept in a store."""
