"""Object stores: `s3://` and everything else that fsspec opens. No torch."""
