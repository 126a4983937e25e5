"""The plan as a value: its models and JSON Schema, differences, and the origins of values."""
