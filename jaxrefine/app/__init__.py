"""The program: configuration, pipeline, command line, demo."""
