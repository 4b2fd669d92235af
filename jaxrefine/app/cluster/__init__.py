"""The processes that share a run: identification and coordination."""
