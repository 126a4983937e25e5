"""Files beside a spec, as far as their names and headers tell."""
