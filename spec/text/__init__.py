"""Texts of specs: grammar, tokens, syntax nodes, recovery from what cannot be read, and layout."""
