"""Runs plans: the scheduler of the job graph, its journal, gangs, the engine and data."""
