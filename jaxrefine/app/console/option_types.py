"""Types of command-line options, with error messages for invalid values."""

import argparse
import math
import os
import sys


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


def count_or_all(text: str) -> int:
    """0 or more, or `all`, which is more than any number."""
    return sys.maxsize if text == "all" else count(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    if not 0 < (number := finite(text)):
        raise argparse.ArgumentTypeError(f"{text} should be above 0")
    return number


def distance_angstrom(text: str) -> float:
    """A distance in Å, with or without its unit: 30, 30A or 30Å."""
    if (number := finite(text.strip().removesuffix("Å").removesuffix("A"))) < 0:
        raise argparse.ArgumentTypeError(f"{text} should be 0 Å or more")
    return number


def even(text: str) -> int:
    """An even number of pixels."""
    if (number := int(text)) < 2 or number % 2:
        raise argparse.ArgumentTypeError(f"{text} should be even and positive")
    return number


def pixel_size(text: str) -> float:
    """A pixel size in Å, within the limits of a particle table."""
    if not 0.01 <= (number := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text} should be in 0.01 … 100 (Å)")
    return number


def folder_map(text: str) -> tuple[str, str]:
    """OLD=NEW: the old and new path of a folder that has moved."""
    old, equals, new = text.partition("=")
    if not (old.strip("/\\") and equals and new):
        raise argparse.ArgumentTypeError(f"{text} should be OLD=NEW, two folders")
    return old, os.path.expanduser(new)


def add_path_map(parser: argparse.ArgumentParser) -> None:
    """Add the option `--map-path`, for commands that read files named in a table."""
    parser.add_argument(
        "--map-path",
        action="append",
        default=[],
        type=folder_map,
        metavar="OLD=NEW",
        help="files named in the folder OLD are now in NEW; may be repeated",
    )
