"""Specs that etude writes: from templates, and from the configurations of other programs."""
