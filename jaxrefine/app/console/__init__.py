"""The program's console: log messages, progress, summary, signals, exit codes."""
