"""The plan as a value: its models and JSON Schema, differences, and where values are from."""
