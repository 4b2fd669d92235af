"""Scores, search and polish. Start reading at refine.py."""
