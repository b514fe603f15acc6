"""score(prompt, candidates) -> rewards, and what best-of-N makes of them."""
