"""Weights: drawn, converted from published ones, averaged and exported."""
