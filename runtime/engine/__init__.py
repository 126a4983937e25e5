"""Drives torchtitan: the only package of etude whose import imports torch."""
