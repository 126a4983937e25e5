"""The order of data: shuffles without a table, packing, and streams."""
