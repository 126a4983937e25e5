"""Reads files of documents and records in any format, in a fixed order."""
