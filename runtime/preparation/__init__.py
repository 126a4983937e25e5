"""Prepares what training needs: tokenizers, data sets, labels. Without torch."""
