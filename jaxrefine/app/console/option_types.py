"""Types of the command line's options: what is wrong with a value is said at once."""

import argparse
import math


def finite(text: str) -> float:
    """A finite number."""
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"{text} should be a finite number")
    return number


def count(text: str) -> int:
    """0 or more."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} should be 0 or more")
    return number


def even(text: str) -> int:
    """An even number of pixels."""
    if (number := int(text)) < 2 or number % 2:
        raise argparse.ArgumentTypeError(f"{text} should be even and positive")
    return number
