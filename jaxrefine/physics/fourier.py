"""Frequency grids of the half-plane (rfft2) layout, and sizes that transform fast."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float


def frequency_grid(
    shape: tuple[int, int],
) -> tuple[Float[Array, "h 1"], Float[Array, "1 r"]]:
    """(ky, kx) in cycles per pixel of rfft2 of an image of `shape`, broadcastable.

    Rows run in fft order (row h/2 is -1/2), columns from 0 to 1/2.
    """
    height, width = shape
    ky = np.fft.fftfreq(height)[:, None].astype(np.float32)
    kx = np.fft.rfftfreq(width)[None, :].astype(np.float32)
    return jnp.asarray(ky), jnp.asarray(kx)


def shift_phase(
    shape: tuple[int, int], shift_px: Float[Array, " 2"]
) -> Complex[Array, "h r"]:
    """Factor on the rfft2 of an image of `shape` that moves the image by (y, x)."""
    ky, kx = frequency_grid(shape)
    phase = -2 * np.pi * (ky * shift_px[0] + kx * shift_px[1])
    return jax.lax.complex(jnp.cos(phase), jnp.sin(phase))


def radial_frequency(shape: tuple[int, int]) -> Float[np.ndarray, "h r"]:
    """|k| in cycles per pixel of rfft2 of an image of `shape`: a constant, in float32."""
    height, width = shape
    ky = np.fft.fftfreq(height)[:, None]
    kx = np.fft.rfftfreq(width)[None, :]
    return np.sqrt(ky**2 + kx**2).astype(np.float32)


def half_plane_weights(shape: tuple[int, int]) -> Float[Array, " r"]:
    """Multiplicity of each column of the half plane in the full plane: 1 or 2."""
    width = shape[1]
    weights = np.full(width // 2 + 1, 2.0, np.float32)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return jnp.asarray(weights)


def next_fast_even(length: int) -> int:
    """Smallest even number >= length whose only prime factors are 2, 3 and 5."""
    return _next_with_factors(max(2, length + length % 2), (2, 3, 5))


def next_fast_odd(length: int) -> int:
    """Smallest odd number >= length whose only prime factors are 3, 5 and 7.

    An odd grid has no Nyquist lines. On these, a function without mirror symmetry, such as
    an astigmatic CTF, would not be the transform of a real image.
    """
    return _next_with_factors(max(1, length + 1 - length % 2), (3, 5, 7))


def _next_with_factors(candidate: int, primes: tuple[int, ...]) -> int:
    while True:
        rest = candidate
        for prime in primes:
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 2
