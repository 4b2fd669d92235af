"""What a user sees of the program: logs, progress, summary, signals, exit codes."""
