"""From Plan to checkpoints: the scheduler of the graph, its journal, gangs, engine and data."""
