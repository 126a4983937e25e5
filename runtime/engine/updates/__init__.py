"""What a step does to the weights: rates, optimizers, means, spikes and rollbacks."""
