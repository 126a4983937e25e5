"""From Recipe to Plan, as a tuple of passes. Imports neither torch nor anything that trains."""
