"""Documents to tokens: readers, samples, tokenizers, memory-mapped shards and shuffled streams."""
