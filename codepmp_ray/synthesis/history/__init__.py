"""Commits of a git repository -> pairs of a definition after and before a change."""
