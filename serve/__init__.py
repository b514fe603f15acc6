"""The best-of-N scoring service: a Ray Serve application over one scoring path."""
