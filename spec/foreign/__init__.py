"""Names from other programs that this language lacks, and what to write instead."""
