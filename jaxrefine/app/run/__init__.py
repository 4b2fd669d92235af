"""One run: its inputs, their checks, the core's objects made of them, and its results."""
