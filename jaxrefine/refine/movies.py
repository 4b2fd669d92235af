"""Sum particles from movie frames that are shifted and weighted by exposure.

Frames are processed one at a time. Boxes are extracted from a frame at whole pixels, and
the sub-pixel part of the shift is a phase ramp, so that no signal wraps around the box,
however far the specimen has moved.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from jaxrefine.physics.boxes import crop_reflected
from jaxrefine.physics.exposure import exposure_normalisation, exposure_weights
from jaxrefine.physics.fourier import shift_phase

# Number of boxes of a frame that are transformed together.
_AT_ONCE = 16


class FrameOptics(eqx.Module):
    """Quantities that exposure weights depend on.

    Attributes:
        pixel_size_angstrom: Pixel size of the frames.
        voltage_kv: Acceleration voltage.
    """

    pixel_size_angstrom: Float[Array, "*n"]
    voltage_kv: Float[Array, "*n"]


@partial(jax.jit, donate_argnums=0)
def add_to_boxes(
    sums: Complex[Array, "n Ph Pr"],
    frame: Float[Array, "Ny Nx"],
    corner_px: Int[Array, "n 2"],
    shift_px: Float[Array, "n 2"],
    exposure: Float[Array, ""],
    optics: FrameOptics,
) -> Complex[Array, "n Ph Pr"]:
    """Add a frame to the summed boxes of particles.

    Args:
        sums: rfft2 of the summed boxes, which have even width; zeros before the first
            frame. The array is donated.
        frame: The frame.
        corner_px: (y, x) of the top-left corner of each box.
        shift_px: (y, x) by which the frame is moved at each particle.
        exposure: Exposure of the frame, from `frame_exposures`.
        optics: Optics of each particle.
    """
    shape = sums.shape[1], 2 * (sums.shape[2] - 1)
    frame = frame - jnp.mean(frame)

    def add(values: tuple[Array, Array, Array, FrameOptics]) -> Array:
        total, corner, shift, lens = values
        whole = jnp.round(shift)
        box = crop_reflected(frame, corner - whole.astype(jnp.int32), shape)
        return total + weighted(box, shift - whole, exposure, lens)

    return jax.lax.map(add, (sums, corner_px, shift_px, optics), batch_size=_AT_ONCE)


@partial(jax.jit, donate_argnums=0)
def add_to_image(
    total: Complex[Array, "Ny Nr"],
    frame: Float[Array, "Ny Nx"],
    shift_px: Float[Array, " 2"],
    exposure: Float[Array, ""],
    optics: FrameOptics,
) -> Complex[Array, "Ny Nr"]:
    """Add a whole frame to the summed image; arguments as for `add_to_boxes`."""
    return total + weighted(frame - jnp.mean(frame), shift_px, exposure, optics)


def weighted(
    image: Float[Array, "h w"],
    shift_px: Float[Array, " 2"],
    exposure: Float[Array, ""],
    optics: FrameOptics,
) -> Complex[Array, "h r"]:
    shape = image.shape[0], image.shape[1]
    lens = optics.pixel_size_angstrom, optics.voltage_kv
    weights = exposure_weights(shape, lens[0], exposure, lens[1])
    return jnp.fft.rfft2(image) * shift_phase(shape, shift_px) * weights


@partial(jax.jit, static_argnames="shape")
def finished(
    rfft: Complex[Array, "h r"],
    exposures: Float[Array, " t"],
    optics: FrameOptics,
    shape: tuple[int, int],
) -> Float[Array, "h w"]:
    """Convert a sum of frames to an image whose noise has the power of a single frame.

    Args:
        rfft: Sum from `add_to_image`, or one box from `add_to_boxes`.
        exposures: Exposures of all frames.
        optics: Optics of the image.
        shape: Real-space shape of the image.
    """
    lens = optics.pixel_size_angstrom, optics.voltage_kv
    norm = exposure_normalisation(shape, lens[0], exposures, lens[1])
    return jnp.fft.irfft2(rfft / norm, s=shape)


@partial(jax.jit, static_argnames="shape")
def finished_boxes(
    sums: Complex[Array, "n h r"],
    exposures: Float[Array, " t"],
    optics: FrameOptics,
    shape: tuple[int, int],
) -> Float[Array, "n h w"]:
    """Apply `finished` to each box."""

    def one(values: tuple[Array, FrameOptics]) -> Array:
        return finished(values[0], exposures, values[1], shape)

    return jax.lax.map(one, (sums, optics), batch_size=_AT_ONCE)
