"""Particles to and from other programs: STAR files and extracted boxes."""
