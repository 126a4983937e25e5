"""Texts of specs: grammar, tokens, syntax nodes, recovery from errors, and layout."""
