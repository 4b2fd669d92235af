"""A data set with known truth, its evaluation, and the self-test."""
