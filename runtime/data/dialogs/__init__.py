"""Dialogs as tokens with parts: protocols and chat templates."""
