"""Attention within documents, on GPUs by torchtitan's kernels, on CPUs by spans."""
