"""What blocks and attributes are: models, the readers of their values, and binding."""
