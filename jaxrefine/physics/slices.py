"""Central slices of the template's Fourier transform."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, ScalarLike

from jaxrefine.data import InputError, Template
from jaxrefine.physics.fourier import frequency_grid
from jaxrefine.physics.splines import tricubic, trilinear

Sampling = Literal["padded", "trilinear", "cubic"]

# Slices with padded sampling correlate with exact projections at 0.9997 or better (0.9995
# along the axes of the volume); unpadded trilinear ones lose up to 1 % (docs/decisions.md).
_PADDING: dict[str, int] = {"padded": 2, "trilinear": 1, "cubic": 2}

# Samples this close to a face of the stored cube, in voxels, count as on it: rotations by
# 90 degrees place whole lines there, and rounding would move some of them outside.
_ON_FACE = 1e-4

# In cube sides, a few times the float32 rounding of a position. Whole positions, which are
# frequent at rotations by 90 degrees, must not depend on rounding: a compiler may compute a
# position twice, once for the voxel and once for the fraction beyond it.
_NUDGE = 5e-7


def make_template(
    volume: Float[Array | np.ndarray, "..."], sampling: Sampling = "padded"
) -> Template:
    """Transform a volume for slicing.

    Args:
        volume: Real-space template (n, n, n), axes z, y, x, its centre at voxel n // 2.
        sampling: "padded": twice zero-padded, and divided by sinc²(x/M) along each axis
            beforehand, which undoes the apodisation by trilinear interpolation; the
            mean over the cube's faces is taken as the background and subtracted.
            "cubic": the same with cubic B-splines and sinc⁴: slices are smooth in the
            rotation, and take some three times as long.
            "trilinear": neither padding nor compensation, as Leopard-EM.

    Returns:
        The template. All but "trilinear" need 8 times the memory.

    Raises:
        InputError: If the volume is not a cube of even side, is constant or not finite
            (its values are checked outside `jit` and `grad`), or the sampling is unknown.
    """
    if sampling not in _PADDING:
        raise InputError(f"sampling {sampling!r}: expected one of {list(_PADDING)}")
    volume = volume if isinstance(volume, Array) else np.asarray(volume)
    if not np.isrealobj(volume):
        raise InputError("the template is complex; expected a volume in real space")
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or volume.shape[0] % 2:
        raise InputError(f"template of shape {volume.shape}: must be a cube of even side")
    if not isinstance(volume, Tracer):
        lowest, highest = float(volume.min()), float(volume.max())
        if not np.isfinite(highest - lowest):
            raise InputError(
                "the template has values that are not finite (NaN or infinite)"
            )
        if lowest == highest:
            raise InputError(f"the template is {lowest:g} everywhere: it has no signal")
    side = volume.shape[0]
    padded = side * _PADDING[sampling]
    # float32, but for those who work in float64 throughout.
    values = jnp.asarray(volume, jnp.result_type(volume, jnp.float32))
    return _transform(values, padded, sampling)


@partial(jax.jit, static_argnums=(1, 2))
def _transform(values: Float[Array, "n n n"], padded: int, sampling: Sampling) -> Template:
    """Compensate for the interpolation, pad to a larger cube, transform, and shift.

    Shifts are signs: alternating ones before a transform shift what comes out by half,
    and after it what went in. Copies of a padded volume take gigabytes each.
    """
    side, half = values.shape[0], padded // 2
    order: Literal[1, 3] = 3 if sampling == "cubic" else 1
    if sampling != "trilinear":
        # A background other than 0 would become the edges of a cube.
        faces = [values[i] for i in (0, -1)] + [values[:, i] for i in (0, -1)]
        faces += [values[:, :, i] for i in (0, -1)]
        values = values - jnp.mean(jnp.stack(faces))
        window = np.sinc((np.arange(side) - side // 2) / padded) ** (order + 1)
        inverse = (1 / window).astype(np.float32)
        values = values * inverse[:, None, None] * inverse[:, None] * inverse
    before = half - side // 2
    sign = 1 - 2 * ((np.arange(padded) - half) % 2).astype(np.float32)
    inner = sign[before : before + side]
    values = values * (inner[:, None, None] * inner[:, None])
    values = jnp.pad(values, (before, padded - side - before))
    # Alternating in the padded cube's own frequencies, z and y counted from -M/2.
    rfft = jnp.fft.rfftn(values) * (sign[:, None, None] * sign[:, None])
    rfft *= 1 - 2 * (np.arange(half + 1) % 2).astype(np.float32)
    if order == 3:
        rfft = _with_halo(rfft)
    return Template(real=rfft.real, imaginary=rfft.imag, side=side, order=order)


def _with_halo(rfft: Complex[Array, "M M Mr"]) -> Complex[Array, "Mh Mh Mrh"]:
    """One more sample before, two after, along each axis: periodic, Friedel along x."""

    def mates(plane: Complex[Array, "M M m"]) -> Complex[Array, "M M m"]:
        """Values at -k, for k on some planes of constant x."""
        return jnp.conj(jnp.roll(plane[::-1, ::-1], (1, 1), axis=(0, 1)))

    before, after = mates(rfft[:, :, 1:2]), mates(rfft[:, :, -3:-1])[:, :, ::-1]
    wider = jnp.concatenate([before, rfft, after], axis=2)
    return jnp.pad(wider, ((1, 2), (1, 2), (0, 0)), mode="wrap")


def central_slice(
    template: Template,
    rotation: Float[Array, "3 3"],
    scale: ScalarLike = 1.0,
    curvature: ScalarLike | None = None,
) -> Complex[Array, "n r"]:
    """Fourier transform of a projection, interpolated (central slice theorem).

    Args:
        template: From `make_template`.
        rotation: Image frame -> volume frame, on xyz column vectors.
        scale: Template voxel size / image pixel size: frequency k of the image (cycles
            per pixel) samples the template at k * scale (cycles per voxel).
        curvature: In voxels; None for a flat slice. Otherwise a paraboloid is sampled:
            kz = curvature · |k|², in cycles per voxel in the image frame.

    Returns:
        Half plane in fft order along y, with its origin at the centre of the volume,
        and the sign of the volume. Samples outside the stored cube, [-1/2, 1/2 - 1/M]
        along z and y and [0, 1/2] along x, are 0; nothing inside it is cut. Where kx is
        negative the Friedel mate is sampled (torch-fourier-slice's rule, ties included).

    Raises:
        InputError: `template` is a volume, or `rotation` is not one matrix.
    """
    if not isinstance(template, Template):
        raise InputError(
            f"template: {type(template).__name__}; expected a Template: "
            "jr.make_template(volume)"
        )
    if np.shape(rotation) != (3, 3):
        raise InputError(
            f"rotation: shape {np.shape(rotation)}; expected (3, 3): for several, use "
            "jax.vmap"
        )
    ky, kx = frequency_grid((template.side, template.side))
    real, imaginary = sample_slice(template, rotation, kx * scale, ky * scale, curvature)
    return jax.lax.complex(real, imaginary)


def sample_slice(
    template: Template,
    rotation: Float[Array, "3 3 ..."],
    kx: Float[Array, "..."],
    ky: Float[Array, "..."],
    curvature: ScalarLike | Float[Array, "..."] | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Sample central slices at any frequencies, all arrays broadcast together.

    Args:
        template: From `make_template`.
        rotation: As for `central_slice`; further axes come last.
        kx: Frequencies along the slice's x in cycles per voxel of the template.
        ky: The same along y.
        curvature: As for `central_slice`; a number, or one for each frequency.

    Returns:
        Real and imaginary part.
    """
    depth, height, width = (
        length - (3 if template.order == 3 else 0) for length in template.real.shape
    )
    stored = depth
    x, y, z = (kx * rotation[i, 0] + ky * rotation[i, 1] for i in range(3))
    if curvature is not None:
        along = curvature * (x**2 + y**2 + z**2)
        x, y, z = (k + along * rotation[i, 2] for i, k in enumerate((x, y, z)))
    decides = jnp.where(jnp.abs(rotation[0, 0]) > 1e-7, rotation[0, 0], rotation[0, 1])
    tie = decides < -1e-8  # below that it is the rounding of a 0
    mirrored = jnp.where(jnp.abs(x) < 1e-8, tie, x < 0)
    sign = jnp.where(mirrored, -stored, stored).astype(x.dtype)
    zyx = (z * sign + stored // 2, y * sign + stored // 2, x * sign)
    last = (depth - 1, height - 1, width - 1)

    inside, low, weight = True, [], []
    nudge = _NUDGE * stored
    near = _ON_FACE + nudge  # a nudged position's share may be as far below 0 as that
    for position, end in zip(zyx, last, strict=True):
        voxel = jnp.clip((position + nudge).astype(jnp.int32), 0, end - 1)
        share = position - voxel
        inside &= (share >= -near) & (share <= 1 + near)
        low.append(voxel)
        weight.append(share)
    row = template.real.shape[2]
    plane = template.real.shape[1] * row
    # The barrier keeps this arithmetic out of the gathers' loops, so that it vectorises.
    base, z_share, y_share, x_share, keep, sign = jax.lax.optimization_barrier(
        (
            low[0] * plane + low[1] * row + low[2],
            *weight,
            jnp.where(inside, 1.0, 0.0),
            jnp.where(mirrored, -1.0, 1.0),
        )
    )
    strides, shares = (plane, row, 1), (z_share, y_share, x_share)
    parts = (template.real.reshape(-1), template.imaginary.reshape(-1))
    interpolate = trilinear if template.order == 1 else tricubic
    real, imaginary = interpolate(parts, strides, base, shares)
    return real * keep, imaginary * keep * sign
