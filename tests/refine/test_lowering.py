"""Tests of accelerators on a CPU: search and polish can be lowered for them."""

import functools
import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxrefine import simulate as sim
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.coordinates import cell_limits
from jaxrefine.refine.grids import local_grid, search_offsets, uniform_orientations
from jaxrefine.refine.layout import plan_layout
from jaxrefine.refine.polish import Polish, polish_batch
from jaxrefine.refine.refine import search_batch
from tests.worlds import Imaging, ball, batch_of, one_particle

IMAGING = Imaging()
GRID = local_grid(
    uniform_orientations(psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.5, theta_fine=0.5),
    search_offsets(-100.0, 100.0, 20.0),
)
# Small decompositions: of the polish's steps and its standard errors.
SOLVERS = {
    "cusolver_getrf_ffi",
    "cusolver_syevd_ffi",
    "cu_lu_pivots_to_permutation",
}
# What the TPU's compiler knows.
TPU_SOLVERS = {"Eigh", "LuDecomposition"}
# How both mark shapes and shardings, without a call.
MARKS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


@functools.cache
def lowered(platform: str, program: str, side: int) -> str:
    """The program for a batch of 16 particles, as it would be compiled; abstract volume."""
    score = IMAGING.image_ctf((side + 8,) * 2, side, defocus=100.0)
    image = np.zeros(score.padded_box, np.float32)
    batch = batch_of([one_particle(score, image, IMAGING)] * 16)
    volume = jax.ShapeDtypeStruct((side,) * 3, jnp.float32)
    template = eqx.filter_eval_shape(make_template, volume)
    optics = {"voltage_kv": 300.0, "pixel_size_angstrom": 1.5}
    small = make_template(sim.potential_volume(ball(16, 1.5, b=100.0), 16, 1.5))
    layout = plan_layout(GRID, score, small, **optics, accelerator=True)
    if program == "search":
        return exported(
            lambda *some: search_batch(*some, None, layout), batch, template, GRID, score,
            platform=platform,
        )  # fmt: skip
    refined = eqx.filter_eval_shape(
        search_batch, batch, template, GRID, score, None, layout
    )
    polish = Polish(at_once=16, bound_to_cell=False)
    cell = (jnp.asarray(cell_limits(GRID, polish.parameters), jnp.float32),) * 2
    return exported(
        lambda *some: polish_batch(*some, polish, None),
        batch, refined, template, cell, score,
        platform=platform,
    )  # fmt: skip


def exported(function: Callable, *arguments: object, platform: str) -> str:
    """The lowered program of a function, for a platform that is not available."""
    arrays, others = eqx.partition(
        arguments, lambda x: eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)
    )
    jitted = jax.jit(lambda some: function(*eqx.combine(some, others)))
    known = [export.DisabledSafetyCheck.custom_call(name) for name in SOLVERS]
    text = export.export(jitted, platforms=[platform], disabled_checks=known)(arrays)
    return text.mlir_module()


def called(program: str) -> set[str]:
    return set(re.findall(r"custom_call @(\w+)", program)) - MARKS


@pytest.mark.slow
@pytest.mark.parametrize("program", ["search", "polish"])
@pytest.mark.parametrize(("platform", "known"), [("cuda", SOLVERS), ("tpu", TPU_SOLVERS)])
def test_nothing_needs_the_host(platform, known, program):
    """Kernels that a compiler makes, and a few solvers; no callback, feed or print."""
    text = lowered(platform, program, 64)
    assert called(text) <= known
    for host_only in ("infeed", "outfeed", "stablehlo.send", "stablehlo.recv", "callback"):
        assert host_only not in text


def test_a_callback_would_be_seen():
    def on_host(x):
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(ValueError, match="lowering platform"):
        exported(on_host, jnp.ones(3), platform="cuda")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["search", "polish"])
def test_a_program_does_not_grow_with_the_template(program):
    """Nothing is unrolled: 512 px make the operations of 64 px, on larger arrays."""

    def operations(side: int) -> int:
        return len(re.findall(r"^ *%", lowered("cuda", program, side), re.MULTILINE))

    # How a size is factored into transforms may differ by some.
    assert operations(512) <= 1.05 * operations(64)


def test_products_are_in_half_precision_and_sums_are_not():
    products = re.findall(r"stablehlo\.dot_general .*", lowered("cuda", "search", 64))
    half = [line for line in products if "xf16>" in line]
    assert half and all(re.search(r"-> tensor<[\dx]+xf32>", line) for line in half)
