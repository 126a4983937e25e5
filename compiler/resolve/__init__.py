"""Names to what they stand for: stages of rounds and variants, their graph, models and settings."""
