"""Tokenizers, and token shards."""
