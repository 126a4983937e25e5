"""torchtitan, driven: the only package of etude that imports torch when it is imported."""
