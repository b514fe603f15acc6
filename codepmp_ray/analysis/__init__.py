"""What a run's data look like: length bias, plots, dataset card, report. No ray, no torch."""
