"""Layout of a search: what it computes, how much at once, and how exhaustively."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jaxrefine.data import SearchGrid, Template
from jaxrefine.physics.ctf import electron_wavelength_angstrom
from jaxrefine.refine.node_counts import count_orientation_nodes
from jaxrefine.refine.nodes import OrientationNodes
from jaxrefine.refine.scoring import Score

Precision = Literal["float32", "float16", "bfloat16"]

# Largest error of interpolation in defocus at the highest frequencies. (Of the whole
# correlation it is a tenth of that or less.)
_DEFOCUS_TOLERANCE = 0.03
# Nodes are used if nodes and candidates are at most this fraction of all orientations.
_WORTHWHILE = 0.7
# Error of interpolation over orientations, relative to how much slices change over the
# grid. A larger one takes fewer nodes and more candidates. An adaptive search only ranks.
_ORIENTATION_TOLERANCE, _RANKING_TOLERANCE = 0.05, 0.15
# Number of orientations in one round of products without interpolation. Most particles
# need one round; an accelerator is as fast with more.
_CANDIDATES, _ACCELERATOR_CANDIDATES = 128, 1024
# Number of orientations that are scored exactly in any case.
_RESCORED, _RANKING_RESCORED = 16, 8
# Frequencies and orientations of one matrix product. On a CPU the slices should fit in the
# cache; accelerators need large products.
_CPU_PRODUCT, _ACCELERATOR_PRODUCT = (1056, 512), (4096, 4096)
# An accelerator searches small particles together, up to this total number of pixels.
_ACCELERATOR_PIXELS = 16 * 64**2
# Largest memory for columns; more is not faster.
_MOST_COLUMN_BYTES = 1 << 30
# Fraction of the free memory that a layout uses. The rest is for XLA's own copies.
_USABLE = 0.5
# Lower limits, even when a device is out of memory.
_LEAST_ORIENTATIONS, _LEAST_COLUMN_BYTES = 8, 1 << 20


@dataclass(frozen=True)
class Layout:
    """Sizes of the parts of a search.

    The results of an exhaustive search (`thorough`) do not depend on the other sizes.

    Attributes:
        defocus_nodes: Number of Chebyshev nodes from which all defocus values are
            interpolated, at most one for each.
        orientation_nodes: Degrees of the polynomials by which all orientations are first
            interpolated, as `OrientationNodes` takes them; None omits this step.
        particles: Number of particles that a device searches together. Each step then
            continues until it is complete for all of them.
        candidates: Number of orientations in each round of products after this step.
        rescored: Smallest number of orientations that are scored exactly.
        orientations: Number of orientations in one matrix product.
        frequencies: Number of frequencies in one matrix product.
        column_bytes: Largest memory of the columns of one product.
        precision: Precision of the inputs of products; sums are always float32.
        thorough: Search exhaustively: continue until no remaining orientation can exceed
            the best. Otherwise each step is done once (the adaptive search), which nearly
            always finds the best, with much less work.
    """

    defocus_nodes: int
    orientation_nodes: tuple[int, int] | None = None
    particles: int = 1
    candidates: int = _ACCELERATOR_CANDIDATES
    rescored: int = _RESCORED
    orientations: int = _CPU_PRODUCT[1]
    frequencies: int = _CPU_PRODUCT[0]
    column_bytes: int = _MOST_COLUMN_BYTES
    precision: Precision = "float32"
    thorough: bool = True

    def nodes_pay(self, count: int) -> bool:
        """Whether interpolation is less work than products for all `count` orientations."""
        if self.orientation_nodes is None:
            return False
        return self.first_products(count) <= _WORTHWHILE * count

    def first_products(self, count: int) -> int:
        """Number of orientations in the products of all nodes and of the first round."""
        if self.orientation_nodes is None:
            return count
        return OrientationNodes.count(self.orientation_nodes) + self.candidates

    def halved(self) -> "Layout | None":
        """The layout with half the memory, or None if it cannot be reduced further."""
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
    """Number of Chebyshev nodes for interpolating the CTF over a range of defocus.

    At Nyquist, k = 1/(2p), the phase of the CTF changes by ±Ω, Ω = πλk²·(half range). The
    error of interpolating exp(iΩx) on [-1, 1] from r nodes is at most 2 (Ω/2)^r / r!.
    """
    k2 = (0.5 / pixel_size_angstrom) ** 2
    phase = math.pi * electron_wavelength_angstrom(voltage_kv) * half_range_angstrom * k2
    nodes = 1
    while 2 * (phase / 2) ** nodes / math.factorial(nodes) > _DEFOCUS_TOLERANCE:
        nodes += 1
    return nodes


def plan_layout(
    grid: SearchGrid,
    score: Score,
    template: Template,
    *,
    voltage_kv: float,
    pixel_size_angstrom: float,
    free_bytes: float = math.inf,
    accelerator: bool = False,
    orientations: int | None = None,
    precision: Precision | None = None,
    thorough: bool = True,
) -> Layout:
    """Plan a layout that suits all particles of a run and fits into a device's memory.

    Args:
        grid: The search grid.
        score: The score.
        template: The template, whose slices show how many nodes they need.
        voltage_kv: The lowest voltage.
        pixel_size_angstrom: The smallest pixel size among the starting values.
        free_bytes: Memory of the device that is free with the template on it.
        accelerator: Whether the device is an accelerator and not a CPU.
        orientations: Number of orientations in one product; None chooses by memory.
        precision: Precision of the inputs of products; None takes float16 on accelerators,
            which have matrix units for it, and float32 on CPUs.
        thorough: False plans an adaptive search.
    """
    _, defoci, count = grid.shape
    offsets = np.asarray(grid.defocus_angstrom)
    half_range = float(offsets.max() - offsets.min()) / 2
    smallest = pixel_size_angstrom + float(np.min(grid.pixel_size_angstrom))
    # The range may be infinite; no more nodes than offsets are used.
    nodes = min(count_defocus_nodes(half_range, voltage_kv, smallest), defoci)

    frequencies, most = _ACCELERATOR_PRODUCT if accelerator else _CPU_PRODUCT
    together = max(_ACCELERATOR_PIXELS // score.side**2, 1) if accelerator else 1
    particles = 1 << (together.bit_length() - 1)  # a power of 2, which can be halved
    others = _other_bytes(grid, score)
    while particles > 1 and _USABLE * free_bytes / particles < 2 * others:
        particles //= 2
    usable = max(_USABLE * free_bytes / particles - others, 0)
    positions = math.prod(score.positions)
    column = 8 * nodes * score.side * (score.side // 2 + 1)
    wanted = min(_MOST_COLUMN_BYTES, positions * column)
    # Columns exist twice, as computed and in chunks: a quarter each of the usable memory.
    column_bytes = int(max(min(wanted, usable / 4), _LEAST_COLUMN_BYTES))
    if orientations is None:
        together = min(positions, max(column_bytes // column, 1))
        # Coordinates, weights and values of samples; a product and its z-scores.
        each = 4 * (20 * frequencies + (nodes + 3 * defoci) * together)
        fits = int(min(most, usable / 2 / each))
        orientations = max(min(fits, count), min(_LEAST_ORIENTATIONS, count))
    many = accelerator and thorough
    candidates = _ACCELERATOR_CANDIDATES if many else _CANDIDATES
    tolerance = _ORIENTATION_TOLERANCE if thorough else _RANKING_TOLERANCE
    worthwhile = candidates < _WORTHWHILE * count
    return Layout(
        defocus_nodes=nodes,
        orientation_nodes=count_orientation_nodes(
            np.asarray(grid.rotation), template, tolerance
        )
        if worthwhile
        else None,
        particles=particles,
        candidates=candidates,
        rescored=_RESCORED if thorough else _RANKING_RESCORED,
        orientations=orientations,
        frequencies=frequencies,
        column_bytes=column_bytes,
        precision=precision or ("float16" if accelerator else "float32"),
        thorough=thorough,
    )


def _other_bytes(grid: SearchGrid, score: Score) -> int:
    """Memory that does not depend on the layout: a particle, and its exact scores."""
    pixel_sizes, defoci, _ = grid.shape
    box, filtered = math.prod(score.box), math.prod(score.filter_grid)
    optics = pixel_sizes * defoci
    prepared = 4 * optics * (box + (2 * score.side) ** 2)
    rescored = 8 * 8 * (optics * box + (2 * score.side) ** 2)
    return prepared + rescored + 40 * (math.prod(score.padded_box) + filtered)
