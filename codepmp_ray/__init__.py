"""CodePMP on Ray: preference pairs from code, reward models trained on them, best-of-N served."""

__version__ = "0.1.0"
