"""The program's commands, one module each.

The module of a command has `HELP`, a line for the list of commands; `add_arguments`, which
defines its command line; and `run`, which returns the exit code. Modules import JAX only
within `run`, since `--help` and errors of the command line do not need it.
"""
