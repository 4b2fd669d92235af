"""Image formation in pure JAX: rotations, central slices, CTF, filters, boxes."""
