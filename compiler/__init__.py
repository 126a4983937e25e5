"""From recipe to plan, as a tuple of passes. Imports neither torch nor anything that trains."""
