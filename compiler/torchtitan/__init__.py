"""Jobs under torchtitan's names: configurations, emitted modules, shards, rejections."""
