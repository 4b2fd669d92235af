"""The exit codes of the program."""

EXIT_WRITTEN = 0
# A check of the self-test failed.
EXIT_CHECK_FAILED = 1
# Out of memory, or one of several processes died.
EXIT_FAILED = 1
EXIT_INVALID_INPUT = 2
# The table was written, but not every particle was refined; with --strict only.
EXIT_NOT_ALL_REFINED = 3
# The table was written, but no particle was refined.
EXIT_NOTHING_REFINED = 4
# As in shells: 128 plus the number of SIGINT.
EXIT_INTERRUPTED = 130
