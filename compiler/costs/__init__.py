"""What training costs: memory, time, energy and money, as readable formulas."""
