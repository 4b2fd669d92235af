"""The processes of one run: which this is, and how they agree."""
