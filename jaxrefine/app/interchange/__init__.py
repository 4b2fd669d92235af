"""Exchange of particles with other programs, and selection and joining of tables."""
