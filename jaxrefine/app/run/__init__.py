"""A run: reading and checking its inputs, building the core's objects, and its results."""
