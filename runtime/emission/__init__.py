"""The plan's train jobs as Python files that torchtitan runs without etude's runtime."""
