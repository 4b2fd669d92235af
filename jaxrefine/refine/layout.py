"""How a search is laid out: what it computes, how much at once, and how thoroughly."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxrefine.data import SearchGrid
from jaxrefine.physics.ctf import electron_wavelength_angstrom
from jaxrefine.refine.nodes import turn
from jaxrefine.refine.scoring import Score

Precision = Literal["float32", "float16", "bfloat16"]

# Interpolation in defocus may be off by this share of a correlation's highest frequencies.
_DEFOCUS_TOLERANCE = 5e-3
# Nodes and candidates are worth their trouble up to this share of all orientations.
_WORTHWHILE = 0.7
# Rotations are counted by sines, which go no further than 90 degrees.
_LARGEST_SINE = 0.8
# Nodes of orientation: so many per radian of the fastest phase's turn, and at least.
_NODES, _FEW_NODES = (1 / 2, 3), (1 / 4, 2)
# Orientations that get a product of their own, at a time.
_CANDIDATES, _FEW_CANDIDATES = 1024, 128
# Where the template's signal ends, as a share of its side.
_RADIUS = 0.4
# Frequencies and orientations of one product. On a CPU the slices between gathering and
# multiplying stay in its cache; an accelerator wants large products.
_CPU_PRODUCT, _ACCELERATOR_PRODUCT = (1056, 512), (4096, 4096)
# An accelerator searches small particles together, as many as have so many pixels.
_ACCELERATOR_PIXELS = 16 * 64**2
# Memory of the columns: more brings no speed.
_MOST_COLUMN_BYTES = 1 << 30
# Of the free memory, what a search may plan with. XLA's own copies are the rest.
_USABLE = 0.5
# Smaller than this a search will not do, out of memory or not.
_LEAST_ORIENTATIONS, _LEAST_COLUMN_BYTES = 8, 1 << 20


@dataclass(frozen=True)
class Layout:
    """Sizes of the search's pieces. While it is thorough, results depend on none of them.

    Attributes:
        defocus_nodes: Chebyshev nodes that stand for all defoci, at most one for each.
        orientation_nodes: Chebyshev nodes along each axis of rotation that stand for all
            orientations at first; None leaves this step out.
        particles: How many one device searches at a time. Each step then goes on until it
            has gone far enough for all of them.
        candidates: How many orientations at a time get a product of their own after it.
        rescored: How many orientations are scored exactly, at least.
        orientations: How many one matrix product takes.
        frequencies: How many one matrix product takes.
        column_bytes: Memory that the columns of one product may take.
        precision: Of the products' inputs; sums are float32 always.
        thorough: Go on until nothing that is left can win. Otherwise each step is done
            once: the best is nearly always found, with far less work.
    """

    defocus_nodes: int
    orientation_nodes: tuple[int, int, int] | None = None
    particles: int = 1
    candidates: int = _CANDIDATES
    rescored: int = 16
    orientations: int = _CPU_PRODUCT[1]
    frequencies: int = _CPU_PRODUCT[0]
    column_bytes: int = _MOST_COLUMN_BYTES
    precision: Precision = "float32"
    thorough: bool = True

    def nodes_pay(self, count: int) -> bool:
        """Whether interpolating among orientations is less work than a product of all."""
        if self.orientation_nodes is None:
            return False
        return math.prod(self.orientation_nodes) + self.candidates <= _WORTHWHILE * count

    def halved(self) -> "Layout | None":
        """The same with half the memory, or None where there is nothing to halve."""
        if self.particles > 1:
            return replace(self, particles=self.particles // 2)
        orientations = max(self.orientations // 2, _LEAST_ORIENTATIONS)
        column_bytes = max(self.column_bytes // 2, _LEAST_COLUMN_BYTES)
        if orientations >= self.orientations and column_bytes >= self.column_bytes:
            return None
        return replace(
            self,
            orientations=min(orientations, self.orientations),
            column_bytes=min(column_bytes, self.column_bytes),
        )


def count_defocus_nodes(
    half_range_angstrom: float, voltage_kv: float, pixel_size_angstrom: float
) -> int:
    """Chebyshev nodes that interpolate the CTF over a range of defocus.

    At Nyquist, k = 1/(2p), the CTF's phase turns by Ω = πλk²·(half range) to either side;
    r nodes leave at most 2 (Ω/2)^r / r! of exp(iΩx) on [-1, 1].
    """
    k2 = (0.5 / pixel_size_angstrom) ** 2
    phase = math.pi * electron_wavelength_angstrom(voltage_kv) * half_range_angstrom * k2
    nodes = 1
    while 2 * (phase / 2) ** nodes / math.factorial(nodes) > _DEFOCUS_TOLERANCE:
        nodes += 1
    return nodes


def count_orientation_nodes(
    rotation: Float[np.ndarray, "k 3 3"], side: int, scale: float, *, thorough: bool = True
) -> tuple[int, int, int] | None:
    """Chebyshev nodes along each axis that interpolate correlations over orientations.

    The phase at Nyquist and the particle's rim turns by Ω = π·radius·angle to either side.
    Ω/2 + 3 nodes leave no more than what trilinear slices are off by themselves, 0.01
    (side 64) to 0.04 (side 256) of a z-score of 13; more nodes gain nothing. Ω/4 + 2 tell
    the promising from the others (`benchmarks/adaptive.py`); Ω/4 + 1 do not.

    Args:
        rotation: Offsets of a grid.
        side: Of the template.
        scale: Template voxel size / image pixel size.
        thorough: Otherwise as few as will do to find where the best may be.

    Returns:
        Along x, y and z; None where the offsets turn too far to be interpolated.
    """
    half = np.max(np.abs(np.asarray(turn(rotation))), axis=0) / 2
    if np.linalg.norm(half) > _LARGEST_SINE:
        return None
    phase = math.pi * _RADIUS * side * scale * half
    slope, least = _NODES if thorough else _FEW_NODES
    x, y, z = (
        1 if h < 1e-6 else math.ceil(slope * p + least)
        for h, p in zip(half, phase, strict=True)
    )
    return x, y, z


def plan_layout(
    grid: SearchGrid,
    score: Score,
    *,
    voltage_kv: float,
    pixel_size_angstrom: float,
    free_bytes: float = math.inf,
    accelerator: bool = False,
    orientations: int | None = None,
    precision: Precision | None = None,
    thorough: bool = True,
) -> Layout:
    """A layout that serves every particle of a run and fits into a device's memory.

    Args:
        grid: The offsets.
        score: How to correlate.
        voltage_kv: The lowest voltage.
        pixel_size_angstrom: The smallest pixel size to start from.
        free_bytes: The device's memory that is free once the template is on it.
        accelerator: Whether the device is one; not a CPU.
        orientations: How many one product takes; None chooses by memory.
        precision: Of the products' inputs; None takes float16 on accelerators, whose
            matrix units are made for it, and float32 on CPUs.
        thorough: False plans an adaptive search.
    """
    _, defoci, count = grid.shape
    offsets = np.asarray(grid.defocus_angstrom)
    half_range = float(offsets.max() - offsets.min()) / 2
    smallest = pixel_size_angstrom + float(np.min(grid.pixel_size_angstrom))
    # Without an end: no more nodes than offsets are ever used.
    nodes = min(count_defocus_nodes(half_range, voltage_kv, smallest), defoci)

    frequencies, most = _ACCELERATOR_PRODUCT if accelerator else _CPU_PRODUCT
    together = max(_ACCELERATOR_PIXELS // score.side**2, 1) if accelerator else 1
    particles = 1 << (together.bit_length() - 1)  # so that halves divide a batch
    others = _other_bytes(grid, score)
    while particles > 1 and _USABLE * free_bytes / particles < 2 * others:
        particles //= 2
    usable = max(_USABLE * free_bytes / particles - others, 0)
    positions = math.prod(score.positions)
    column = 8 * nodes * score.side * (score.side // 2 + 1)
    wanted = min(_MOST_COLUMN_BYTES, positions * column)
    # Columns exist twice, as they come and cut into chunks: half of what is usable.
    column_bytes = int(max(min(wanted, usable / 4), _LEAST_COLUMN_BYTES))
    if orientations is None:
        together = min(positions, max(column_bytes // column, 1))
        # A sample's place, weights and values; what a product holds, and its z-scores.
        each = 4 * (20 * frequencies + (nodes + 3 * defoci) * together)
        fits = int(min(most, usable / 2 / each))
        orientations = max(min(fits, count), min(_LEAST_ORIENTATIONS, count))
    return Layout(
        defocus_nodes=nodes,
        orientation_nodes=count_orientation_nodes(
            np.asarray(grid.rotation), score.side, 1.0, thorough=thorough
        ),
        particles=particles,
        candidates=_CANDIDATES if thorough else _FEW_CANDIDATES,
        orientations=orientations,
        frequencies=frequencies,
        column_bytes=column_bytes,
        precision=precision or ("float16" if accelerator else "float32"),
        thorough=thorough,
    )


def _other_bytes(grid: SearchGrid, score: Score) -> int:
    """What does not depend on the layout: a particle, and scoring its best exactly."""
    pixel_sizes, defoci, _ = grid.shape
    box, filtered = math.prod(score.box), math.prod(score.filter_grid)
    optics = pixel_sizes * defoci
    prepared = 4 * optics * (box + (2 * score.side) ** 2)
    rescored = 8 * 8 * (optics * box + (2 * score.side) ** 2)
    return prepared + rescored + 40 * (math.prod(score.padded_box) + filtered)
