"""Scores and the search over poses. Start reading at refine.py."""
