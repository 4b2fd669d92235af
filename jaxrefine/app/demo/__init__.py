"""A data set with known truth, what a run made of it, and the self-test."""
