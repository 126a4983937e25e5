"""Files that a spec names, as far as names and headers tell."""
