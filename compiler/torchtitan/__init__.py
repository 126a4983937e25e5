"""Jobs under torchtitan's own names: configurations, emitted modules, shards, what it refuses."""
