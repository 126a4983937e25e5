"""Prepares the inputs of training, without torch: tokenizers, data sets, labels."""
