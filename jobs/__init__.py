"""Entry points: `python -m jobs.NAME --config RECIPE key=value ...`, one per verb."""
