"""Specs as JSON: the same statements, read and written with places."""
