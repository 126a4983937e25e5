"""The language server: pure functions on documents, and a thin server around them."""
