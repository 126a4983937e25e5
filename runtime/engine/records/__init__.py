"""Batches of records and the losses on them: dialogs, preferences, ratings, answers."""
