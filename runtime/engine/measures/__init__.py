"""What models say without being trained: references, scores, held-out losses."""
