"""Planning a search for the memory that there is."""

import functools
import math

import numpy as np
import pytest

from jaxrefine import simulate as sim
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.grids import local_grid, uniform_orientations
from jaxrefine.refine.layout import Layout, plan_layout
from jaxrefine.refine.template_ctf import TemplateCTF

GRID = local_grid(
    uniform_orientations(psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25),
    np.arange(-100.0, 101.0, 20.0),
)
OPTICS = {"voltage_kv": 300.0, "pixel_size_angstrom": 1.0}
GIB = 2.0**30


@functools.cache
def template(side=32):
    """A particle that fills 0.8 of its volume."""
    atoms = sim.random_globule(500, 0.4 * side, np.random.default_rng(0)).blurred(20.0)
    return make_template(sim.potential_volume(atoms, side, 1.0))


def plan(side=512, box=528, grid=GRID, of=None, **more):
    score = TemplateCTF((box, box), side)
    return plan_layout(grid, score, of or template(), **OPTICS, **more)


def test_without_a_limit():
    on_cpu, on_accelerator = plan(), plan(accelerator=True)
    assert on_cpu.precision == "float32" and on_accelerator.precision == "float16"
    assert on_accelerator.orientations > on_cpu.orientations
    assert on_cpu.column_bytes == on_accelerator.column_bytes == GIB
    # Columns of 289 positions at the nodes of a small template are less than that.
    small = plan(64, 80)
    assert small.column_bytes == 8 * 289 * small.defocus_nodes * 64 * 33


def test_less_memory_makes_smaller_pieces():
    plans = [plan(accelerator=True, free_bytes=free * GIB) for free in (80, 8, 2, 1, 0)]
    orientations = [each.orientations for each in plans]
    columns = [each.column_bytes for each in plans]
    assert orientations == sorted(orientations, reverse=True) and orientations[0] == 4096
    assert columns == sorted(columns, reverse=True) and columns[0] == 2**30
    # What the plan counts is never more than half of what is free.
    for each, free in zip(plans[:3], (80, 8, 2), strict=True):
        gathered = 4 * 20 * each.frequencies * each.orientations
        assert 2 * each.column_bytes + gathered < free * GIB / 2
    # However little there is, it is tried.
    assert orientations[-1] == 8 and columns[-1] == 2**20


@pytest.mark.parametrize("side", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_an_adaptive_search_of_the_documented_grid_is_a_twentieth(side):
    thorough, adaptive = (
        plan(side, side + 8, of=template(side), thorough=thorough)
        for thorough in (True, False)
    )
    assert thorough.thorough and not adaptive.thorough
    _, defoci, orientations = GRID.shape
    assert adaptive.nodes_pay(orientations)
    products = adaptive.first_products(orientations)
    computed = products * adaptive.defocus_nodes + adaptive.rescored * defoci
    assert computed <= 0.05 * defoci * orientations
    assert products < thorough.first_products(orientations)
    assert adaptive.rescored < thorough.rescored


def test_an_accelerator_takes_small_particles_together():
    sides = (32, 64, 100, 128, 256, 512)
    assert [plan(n, n + 8, accelerator=True).particles for n in sides] == [
        64,
        16,
        4,
        4,
        1,
        1,
    ]
    assert plan(64, 72).particles == 1
    # In less memory fewer, and where it runs out they are the first to be halved.
    little = plan(64, 72, accelerator=True, free_bytes=0.1 * GIB)
    assert 1 <= little.particles < 16 and little.orientations > 8
    layout = Layout(5, particles=2, orientations=100)
    assert layout.halved() == Layout(5, orientations=100)


def test_what_is_asked_for():
    assert plan(orientations=3, free_bytes=0).orientations == 3
    assert plan(precision="float32", accelerator=True).precision == "float32"
    # no more than there are
    few = local_grid(
        uniform_orientations(psi_coarse=1.0, psi_fine=0.5, theta_coarse=0.0, theta_fine=1.0)
    )
    assert plan(grid=few).orientations == 5


def test_halving_ends():
    layout, seen = Layout(5, orientations=100, column_bytes=3 << 20), []
    while layout is not None:
        seen.append((layout.orientations, layout.column_bytes))
        assert layout.defocus_nodes == 5
        layout = layout.halved()
    mib = 1 << 20
    assert seen == [
        (100, 3 * mib),
        (50, 1.5 * mib),
        (25, mib),
        (12, mib),
        (8, mib),
    ]
    # A user's own small number is never raised.
    assert Layout(5, orientations=3, column_bytes=mib).halved() is None


@pytest.mark.parametrize("free", [math.inf, GIB])
def test_the_plan_is_a_number_of_whole_orientations(free):
    layout = plan(free_bytes=free)
    assert isinstance(layout.orientations, int) and isinstance(layout.column_bytes, int)
