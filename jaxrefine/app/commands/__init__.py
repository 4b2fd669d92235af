"""The program's commands, a module each.

A command's module has `HELP`, a line for the list of commands; `add_arguments`, which
describes its command line; and `run`, which returns the exit code. Modules import JAX
only within `run`: `--help` and errors of the command line need none of it.
"""
