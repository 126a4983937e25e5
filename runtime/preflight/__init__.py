"""What a run needs, looked at before its first job."""
