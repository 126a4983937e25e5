"""What can be said of blocks beside those that have errors."""
