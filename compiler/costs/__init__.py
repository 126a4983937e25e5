"""What training costs: memory, time, energy and money, as formulas that can be read."""
