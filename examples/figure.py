"""Figures of the other examples: made without a display, and written as PNG."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def panels(count: int, height: float = 3.8, **shared: bool) -> tuple[Figure, list[Axes]]:
    """Panels in a row; `sharex` and `sharey` are passed to matplotlib."""
    figure = Figure(figsize=(4.2 * count + 0.6, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, **shared)[0].tolist()


def save(figure: Figure, path: Path, instead: str | None = None) -> None:
    """Write a figure to a path, or to the one named on the command line."""
    figure.savefig(instead or path, dpi=150)
    print(f"written: {instead or path}")
