"""Absolute schedules: steps, tokens, rates, mixtures and placements of every train stage."""
