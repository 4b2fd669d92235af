"""Draw the README's figure: the demo's particles before and after refinement.

python docs/before_after.py

The demo is made in a temporary folder, refined with the polish, and compared with its
truth.
"""

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from pictures import BLUE, FOLDER, GREY, INK, STYLE
from scipy.ndimage import gaussian_filter

from jaxrefine.app.config import Config
from jaxrefine.app.demo.dataset import (
    TEMPLATE_SIDE,
    Comparison,
    compare_with_truth,
    make_demo,
)
from jaxrefine.app.run.pipeline import run
from jaxrefine.io.mrc import read_image

# A field of `ParticleErrors`: its label, and the digits of its mean.
PANELS = {
    "angle_deg": ("orientation error (°)", 2),
    "position_px": ("position error (px)", 2),
    "defocus_angstrom": ("defocus error (Å)", 0),
    "z_score": ("z-score", 1),
}


def main() -> None:
    """Make and refine the demo, and draw it."""
    matplotlib.rcParams.update(STYLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_demo(folder)
        path = folder / "config.yaml"
        path.write_text(path.read_text() + "polish: {enabled: true}\n")
        run(Config.load(path), quiet=True)
        figure = draw(
            read_image(folder / "micrograph_0.mrc"),
            pd.read_csv(folder / "match_results.csv"),
            compare_with_truth(folder, folder / "match_results_refined.csv"),
        )
    figure.savefig(FOLDER / "before_after.png", dpi=100, metadata={"Software": None})


def draw(image: np.ndarray, table: pd.DataFrame, comparison: Comparison) -> Figure:
    """A micrograph with its particles, and each particle's errors and z-score."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    micrograph, *panels = figure.subplots(
        1, 1 + len(PANELS), width_ratios=[2.2] + [1] * len(PANELS)
    )
    smooth = gaussian_filter(image, 3)
    low, high = np.percentile(smooth, [0.5, 99.5])
    micrograph.imshow(smooth, cmap="gray", vmin=low, vmax=high)
    here = table[table.micrograph_path == "micrograph_0.mrc"]
    for centre in zip(here.pos_x_img, here.pos_y_img, strict=True):
        circle = Circle(centre, TEMPLATE_SIDE / 2, fill=False, color=BLUE, lw=1.4)
        micrograph.add_patch(circle)
    micrograph.set(xticks=[], yticks=[], title="a micrograph and its particles")
    for axes, (field, (label, digits)) in zip(panels, PANELS.items(), strict=True):
        _dumbbells(axes, comparison, field)
        before, after = comparison.mean(field)
        axes.set_title(f"{label}\nmean {before:.{digits}f} → {after:.{digits}f}")
    panels[0].set_ylabel("particle")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2
    )
    return figure


def _dumbbells(axes: Axes, comparison: Comparison, field: str) -> None:
    """A line for each particle, from the match's value to the refined one."""
    before, after = np.array([getattr(p, field) for p in comparison.particles]).T
    rows = np.arange(len(before))
    axes.hlines(rows, before, after, color=GREY, lw=0.8, alpha=0.6)
    axes.plot(before, rows, "o", mfc="white", mec=INK, ms=5, label="template matching")
    axes.plot(after, rows, "o", color=BLUE, ms=5, label="refined and polished")
    axes.set_yticks([])
    axes.set_xlim(left=8 if field == "z_score" else 0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
