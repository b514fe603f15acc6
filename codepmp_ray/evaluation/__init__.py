"""Tasks, graded answers, best-of-N curves and their statistics."""
