"""Renders a plan as an HTML page for people: one self-contained file."""
