"""What things are: equinox modules that every other layer speaks in."""
