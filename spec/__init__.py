"""What a user writes: grammar, syntax tree, quantities, schedules, recipe models, diagnostics."""
