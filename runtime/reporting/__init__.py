"""What a run has done so far, gathered from its folder for reports."""
