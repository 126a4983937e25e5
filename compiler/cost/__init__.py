"""What a plan costs: memory of a GPU, time of a step, hours, energy and money."""
