"""Measures of exported models, one module each."""
