"""Object stores: `s3://` and what else fsspec opens. No torch."""
