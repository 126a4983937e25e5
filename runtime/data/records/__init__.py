"""Records of dialogs, preferences, ratings and prompts, and their shards."""
