"""STAR files of RELION and cisTEM: their names for things, writing and reading."""
