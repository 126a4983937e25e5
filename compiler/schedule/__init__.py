"""Schedules made absolute: steps, tokens, rates, mixtures and placements of every train stage."""
