"""Resolves names: stages in rounds and variants, their graph, models and settings."""
