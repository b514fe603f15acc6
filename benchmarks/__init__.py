"""Measurements against other tools, one command each; results lie in `results/`."""
