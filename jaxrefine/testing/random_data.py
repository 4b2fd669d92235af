"""Random data for testing scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.data import Alignment, Optics, Particles, Template
from jaxrefine.physics.fourier import radial_frequency
from jaxrefine.physics.rotations import euler_to_matrix
from jaxrefine.physics.slices import make_template
from jaxrefine.refine.scoring import Score


def random_particle(
    score: Score,
    *,
    defocus_angstrom: tuple[float, float] = (2600.0, 2300.0),
    pixel_size_angstrom: float = 1.5,
    seed: int = 0,
) -> tuple[Particles, Template]:
    """One particle of white noise under an uneven filter, and a random smooth template."""
    rng = np.random.default_rng(seed)
    side = score.side
    k2 = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side) ** 2
    k2 = k2 + np.fft.fftfreq(side)[:, None, None] ** 2
    smooth = np.fft.rfftn(rng.standard_normal((side,) * 3)) * np.exp(-60 * k2)
    volume = np.fft.irfftn(smooth, s=(side,) * 3, axes=(0, 1, 2))
    r2 = np.indices((side,) * 3) - side // 2
    # Positive, like a particle, and smaller than its cube.
    volume = (volume / volume.std() + 2) * np.exp(-(r2**2).sum(0) / (side / 5) ** 2)
    rotation = euler_to_matrix(rng.uniform(20, 70, 3))

    def uneven(shape: tuple[int, int]) -> Any:
        return array(0.4 + 1.2 * radial_frequency(shape))

    array = jnp.asarray
    particle = Particles(
        alignment=Alignment(
            rotation=array(rotation),
            position_px=array([50.0, 60.0]),
            defocus_angstrom=array(defocus_angstrom),
            astigmatism_deg=array(25.0),
            pixel_size_angstrom=array(pixel_size_angstrom),
        ),
        optics=Optics(*(array(value) for value in (300.0, 2.7, 0.1, 0.0, 20.0))),
        template_pixel_size_angstrom=array(pixel_size_angstrom),
        image=array(rng.standard_normal(score.padded_box)),
        filter_image=uneven(score.padded_box),
        filter_template=uneven(score.filter_grid),
        corr_mean=array(np.zeros(score.positions)),
        corr_std=array(np.ones(score.positions)),
        background_mean=array(0.0),
        background_std=array(1.0),
        noise_std=array(1.0),
        mean_peaks=array(False),
        valid=array(True),
    )
    return particle, jax.jit(make_template)(volume)
