"""Draw the pictures of docs/conventions.md, from the package's own functions.

python docs/pictures.py

The shapes that are told apart by colour differ in line or mark as well.
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import jaxrefine as jr
from jaxrefine.physics.ctf import contrast_transfer

FOLDER = Path(__file__).parent / "pictures"
BLUE, ORANGE, INK, GREY = "#1f5a94", "#c8641b", "#1a1a1a", "#6b6b6b"
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9.5}


def main() -> None:
    """Draw them all."""
    FOLDER.mkdir(exist_ok=True)
    matplotlib.rcParams.update(STYLE)
    for draw in (orientations, positions, search_grid, defocus):
        figure = draw()
        # Without its version of matplotlib the same picture is the same file.
        figure.savefig(
            FOLDER / f"{draw.__name__}.png", dpi=110, metadata={"Software": None}
        )


def _image_axes(axes: Axes, title: str, reach: float) -> None:
    """An image's frame: x along the columns, y along the rows, downwards."""
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal", title=title)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color(GREY)
    corner = -0.92 * reach
    for end, name in (((0.4 * reach, 0.0), "x"), ((0.0, 0.4 * reach), "y")):
        axes.annotate(
            "",
            (corner + end[0], corner + end[1]),
            (corner, corner),
            arrowprops={"arrowstyle": "->", "color": GREY},
        )
        text = (corner + 1.2 * end[0], corner + 1.2 * end[1])
        axes.text(*text, name, ha="center", va="center", color=GREY)


def _letter() -> np.ndarray:
    """Atoms, xyz: a flat letter F in the plane of x and y, its stem along y."""
    stem = [(-3.0, y) for y in np.arange(-6, 6.1)]
    arms = [(x, -6.0) for x in np.arange(-2, 4.1)] + [(x, -0.5) for x in np.arange(-2, 2.1)]
    return np.array([(x, y, 0.0) for x, y in stem + arms])


def orientations() -> Figure:
    """What phi, theta and psi do to a particle's image."""
    cases = [(0, 0, 0), (0, 0, 30), (0, 60, 0), (30, 60, 0), (30, 60, 30)]
    figure = Figure(figsize=(9.6, 2.5), layout="constrained")
    for axes, euler in zip(figure.subplots(1, len(cases)), cases, strict=True):
        rotation = np.asarray(jr.euler_to_matrix(np.array(euler, float)))
        _image_axes(axes, "phi {}, theta {}, psi {}".format(*euler), 10.0)
        # Row by row Rᵀ·p: where a point p of the volume appears in the image.
        seen = _letter() @ rotation
        axes.scatter(seen[:, 0], seen[:, 1], s=22, color=INK)
        for axis, name, colour in zip(np.eye(3), "XYZ", (BLUE, ORANGE, GREY), strict=True):
            tip = 7.0 * axis @ rotation
            # A dot where the axis points along the beam.
            if np.hypot(tip[0], tip[1]) > 0.1:
                arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.6}
                axes.annotate("", tip[:2], (0, 0), arrowprops=arrow)
            else:
                axes.plot(0, 0, "o", color=colour, markersize=7, markeredgecolor="white")
            axes.text(
                *(1.22 * tip[:2] + (0 if abs(tip[:2]).max() > 0.1 else 1.3)),
                name,
                color=colour,
                weight="bold",
                ha="center",
                va="center",
            )
    return figure


def positions() -> Figure:
    """Corner, centre, template, box, and the positions that are searched."""
    template, box, pos = 8, 12, np.array([5, 4])  # pos is (x, y)
    corner = pos - (box - template) // 2
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.subplots()
    # A pixel covers half a pixel to either side of its centre.
    axes.set(xlim=(-0.5, 19.5), ylim=(16.5, -0.5), aspect="equal")
    axes.set(xlabel="x, px", ylabel="y, px", title="micrograph")
    axes.set_axisbelow(True)
    axes.set_xticks(np.arange(0, 20, 2))
    axes.set_yticks(np.arange(0, 17, 2))
    axes.set_xticks(np.arange(-0.5, 20), minor=True)
    axes.set_yticks(np.arange(-0.5, 17), minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    for start, side, colour, line, name in (
        (corner, box, ORANGE, "--", f"box, H = {box}"),
        (pos, template, BLUE, "-", f"template, n = {template}"),
    ):
        style = {"fill": False, "edgecolor": colour, "linestyle": line, "linewidth": 2}
        axes.add_patch(Rectangle(start - 0.5, side, side, label=name, **style))
    steps = np.arange(box - template + 1)
    x, y = (corner[i] + steps for i in (0, 1))
    axes.scatter(
        *np.meshgrid(x, y), s=14, color=GREY, label="corners searched, (H − n + 1)²"
    )
    axes.scatter(*pos, s=70, color=BLUE, marker="s", label="pos_x, pos_y = 5, 4")
    centre = pos + template // 2
    axes.scatter(
        *centre,
        s=90,
        color=INK,
        marker="x",
        linewidth=2,
        label="pos_x_img, pos_y_img = 9, 8",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def search_grid() -> Figure:
    """The uniform grid: tilts, and the in-plane rotations that each of them has."""
    steps = {"theta_coarse": 2.5, "theta_fine": 0.25, "psi_coarse": 1.5, "psi_fine": 0.1}
    rotations, _ = jr.uniform_orientations(**steps)
    beam = rotations[:, :, 2]  # where the offset takes the image's z
    tilt_deg = np.rad2deg(beam[:, :2])  # small angles
    in_plane = round(2 * steps["psi_coarse"] / steps["psi_fine"]) + 1
    tilts = tilt_deg[::in_plane]
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    disk, line = figure.subplots(1, 2, width_ratios=(1, 1.2))
    rim = np.hypot(*tilts.T) > steps["theta_coarse"] - 0.1
    disk.scatter(*tilts[~rim].T, s=7, color=INK)
    disk.scatter(*tilts[rim].T, s=14, color=ORANGE, marker="^")
    disk.set(aspect="equal", xlabel="tilt towards x, °", ylabel="tilt towards y, °")
    disk.set_title(f"{len(tilts)} tilts, a disk of theta_step_coarse")
    disk.invert_yaxis()
    spins = -steps["psi_coarse"] + steps["psi_fine"] * np.arange(in_plane)
    line.scatter(spins[1:-1], np.zeros(in_plane - 2), s=14, color=INK)
    line.scatter(
        spins[[0, -1]],
        [0, 0],
        s=26,
        color=ORANGE,
        marker="^",
        label="on the border: edge_of_grid",
    )
    line.set(xlabel="in-plane rotation, °", yticks=[], ylim=(-1, 1))
    line.set_title(f"each with {in_plane} in-plane rotations, ±psi_step_coarse")
    for side in ("left", "top", "right"):
        line.spines[side].set_visible(False)
    line.legend(frameon=False, loc="upper center")
    figure.suptitle(f"{len(rotations):,} orientations at the default steps", fontsize=10)
    return figure


def defocus() -> Figure:
    """Sign of defocus and contrast, and the direction of u."""
    optics = jr.Optics(
        voltage_kv=jnp.asarray(300.0),
        spherical_aberration_mm=jnp.asarray(2.7),
        amplitude_contrast=jnp.asarray(0.07),
        phase_shift_deg=jnp.asarray(0.0),
        b_factor_angstrom2=jnp.asarray(0.0),
    )
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    curve, dot, rings = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    side = 1024
    frequency = np.arange(side // 2 + 1) / side
    for value, style, colour in ((5000.0, "-", BLUE), (-5000.0, "--", ORANGE)):
        plane = contrast_transfer((side, side), 1.0, jnp.array([value, value]), 0.0, optics)
        curve.plot(
            frequency[:160],
            plane[0, :160],
            style,
            color=colour,
            label=f"{value:+,.0f} Å, {'under' if value > 0 else 'over'}focus",
        )
    curve.axhline(0, color=GREY, linewidth=0.8)
    curve.set(xlabel="frequency, 1/Å", title="CTF", ylim=(-1.05, 1.5))
    curve.legend(frameon=False, loc="upper right")

    side = 96
    square = (np.arange(side) - side // 2) ** 2
    density = np.exp(-(square[:, None] + square) / (2 * 5.0**2))
    plane = contrast_transfer((side, side), 2.0, jnp.array([5000.0, 5000.0]), 0.0, optics)
    image = -np.fft.irfft2(np.fft.rfft2(density) * plane, (side, side))
    most = abs(image).max()
    dot.imshow(image, cmap="gray", vmin=-most, vmax=most)
    dot.set(xticks=[], yticks=[], title="a ball of matter, +5,000 Å")

    side, angle = 256, 30.0
    half = contrast_transfer((side, side), 2.0, jnp.array([9000.0, 5000.0]), angle, optics)
    # The half plane holds kx ≥ 0; the other half is its mirror through the centre.
    full = np.fft.fft2(np.fft.irfft2(half, (side, side))).real
    reach = 0.25
    extent = (-reach, reach, reach, -reach)
    white_to_ink = LinearSegmentedColormap.from_list("ink", ["white", INK])
    part = slice(side // 4, side - side // 4)
    rings.imshow(
        np.fft.fftshift(full)[part, part] ** 2,
        cmap=white_to_ink,
        extent=tuple(e / 2 for e in extent),
    )
    tip = 0.115 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    arrow = {"arrowstyle": "-|>", "color": ORANGE, "lw": 2.2}
    rings.annotate("", tip, (0, 0), arrowprops=arrow)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    u = {"color": ORANGE, "weight": "bold", "fontsize": 11, "bbox": paper}
    rings.text(*(tip * 0.95 + (0.0, 0.03)), "u", ha="center", va="center", **u)
    rings.set(xlabel="kx, 1/Å", ylabel="ky, 1/Å")
    rings.set_title(f"CTF², u 9,000, v 5,000 Å, α {angle:.0f}°")
    return figure


if __name__ == "__main__":
    main()
