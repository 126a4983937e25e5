"""The schema: models of blocks and attributes, the readers of their values, and binding."""
