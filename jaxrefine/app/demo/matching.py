"""The demo's template matching: a small and coarse substitute for a real one.

Filter and correlation follow Leopard-EM (whitening, CTF on the template's grid), in numpy,
but with exact projections of the atoms instead of slices of a volume.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jaxrefine import simulate as sim

Image = NDArray[np.float32]


def projections_rfft(
    atoms: sim.Atoms, rotations: NDArray, side: int, pixel_size_angstrom: float
) -> NDArray[np.complex64]:
    """(n, side, side // 2 + 1): projections in the middle of the template's box."""
    middle = (side // 2, side // 2)
    return np.stack(
        [
            sim.exact_projection_rfft(
                atoms, rotation, (side, side), pixel_size_angstrom, middle
            )
            for rotation in rotations
        ]
    ).astype(np.complex64)


def with_opposite_views(
    projections: NDArray, rotations: NDArray
) -> tuple[NDArray, NDArray]:
    """Projections and rotations, followed by those of the opposite views.

    A rotation by 180° about the image's y axis mirrors the projection in x. It needs no
    computation, because P(ky, -kx) is the conjugate of P(-ky, kx).
    """
    mirrored = np.roll(projections[:, ::-1], 1, axis=1).conj()
    behind = rotations @ np.diag([-1.0, 1.0, -1.0])
    return np.concatenate([projections, mirrored]), np.concatenate([rotations, behind])


def match(
    image: Image, projections: NDArray, rotations: NDArray, ctf: NDArray, n_statistics: int
) -> dict[str, Image]:
    """Maps of a match, with the shape image - template + 1.

    The correlation is in units of its noise: the image is whitened to variance 1, and
    templates have norm 1 within the whole image.

    Args:
        image: The micrograph.
        projections: (n, side, side // 2 + 1), matter positive.
        rotations: (n, 3, 3), their rotations.
        ctf: (side, side // 2 + 1).
        n_statistics: Mean and standard deviation are taken over the first `n_statistics`
            projections; the best is taken over all.

    Returns:
        mip, scaled_mip, correlation_average, correlation_variance (which holds the
        standard deviation), orientation_phi, orientation_theta, orientation_psi.
    """
    side = projections.shape[1]
    spectrum = np.fft.rfft2(image)
    spectrum[0, 0] = 0.0
    curve = _whitening_curve(spectrum, image.shape)
    spectrum *= _on_grid(curve, image.shape)
    deviation = np.fft.irfft2(spectrum, s=image.shape).std()
    spectrum = (spectrum / deviation).astype(np.complex64)
    transfer = (-_on_grid(curve, (side, side)) * ctf).astype(np.float32)
    transfer[0, 0] = 0.0
    height, width = image.shape[0] - side + 1, image.shape[1] - side + 1
    total, squares = np.zeros((height, width)), np.zeros((height, width))
    mip = np.full((height, width), -np.inf, np.float32)
    best = np.zeros((height, width), dtype=int)
    for index, projection in enumerate(projections):
        template = _unit_template(projection * transfer, image.size)
        waves = np.fft.rfft2(template, s=image.shape)
        waves[0, 0] = 0.0
        found = np.fft.irfft2(waves.conj() * spectrum, s=image.shape)[:height, :width]
        if index < n_statistics:
            total += found
            squares += found.astype(np.float64) ** 2
        better = found > mip
        mip[better], best[better] = found[better], index
    mean = total / n_statistics
    deviation = np.sqrt(squares / n_statistics - mean**2)
    angles = np.array([sim.euler_from_matrix(rotation) for rotation in rotations])[best]
    maps = {
        "mip": mip,
        "scaled_mip": (mip - mean) / deviation,
        "correlation_average": mean,
        "correlation_variance": deviation,
        "orientation_phi": angles[..., 0],
        "orientation_theta": angles[..., 1],
        "orientation_psi": angles[..., 2],
    }
    return {name: values.astype(np.float32) for name, values in maps.items()}


def peaks(
    scaled_mip: Image, n_searched: int, exclusion_px: float
) -> Iterator[tuple[int, int]]:
    """(y, x) of maxima, best first, above a level that noise exceeds in 1 of 100 maps.

    A real match uses a level that noise exceeds once per map. Here the standard deviations
    come from only a few hundred orientations, and their errors widen the tails.

    Args:
        scaled_mip: Map of z-scores.
        n_searched: Number of orientations of the search.
        exclusion_px: Smallest distance between maxima.
    """
    left = scaled_mip.copy()
    threshold = NormalDist().inv_cdf(1.0 - 0.01 / (n_searched * left.size))
    rows, columns = np.indices(left.shape)
    while left.max() > threshold:
        y, x = divmod(int(np.argmax(left)), left.shape[1])
        yield y, x
        left[np.hypot(rows - y, columns - x) < exclusion_px] = -np.inf


def _unit_template(template_rfft: NDArray, n_pixels: int) -> NDArray:
    """Zero mean at the edge of the box; norm 1 after subtracting its mean over the
    image."""
    side = template_rfft.shape[0]
    template = np.fft.irfft2(template_rfft, s=(side, side))
    rim = np.ones((side, side), dtype=bool)
    rim[1:-1, 1:-1] = False
    template -= template[rim].mean()
    return template / np.sqrt(np.sum(template**2) - np.sum(template) ** 2 / n_pixels)


def _whitening_curve(spectrum: NDArray, shape: tuple[int, int]) -> NDArray:
    """(2, bins): frequencies in cycles/px, and the filter that flattens the spectrum."""
    k = _frequency(shape).ravel()
    n_bins = int((max(spectrum.shape) // 2 + 1) * np.sqrt(2) + 1)
    centres = np.linspace(0.0, np.sqrt(0.5), n_bins)
    at = k / centres[1]
    low = np.minimum(at.astype(int), n_bins - 2)
    share, power = at - low, np.abs(spectrum.ravel()) ** 2

    def binned(values: NDArray) -> NDArray:
        left = np.bincount(low, values * (1 - share), n_bins)
        return left + np.bincount(low + 1, values * share, n_bins)

    amplitude = np.sqrt(binned(power) / np.maximum(binned(np.ones_like(k)), 1e-12))
    curve = np.divide(1.0, amplitude, out=np.zeros(n_bins), where=amplitude > 0)
    curve /= curve[centres <= 0.5].max()
    curve[centres > 0.5] = 1.0
    return np.stack([centres, curve])


def _on_grid(curve: NDArray, shape: tuple[int, int]) -> NDArray:
    return np.interp(_frequency(shape), *curve)


def _frequency(shape: tuple[int, int]) -> NDArray:
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
