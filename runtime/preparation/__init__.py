"""What every training needs before it: tokenizers, data sets, labels. Without torch."""
