"""STAR files of RELION and cisTEM: their column names, reading and writing."""
