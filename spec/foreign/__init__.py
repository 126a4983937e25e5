"""Names that other programs have and this language lacks, and what to write instead."""
