"""The two scores, step by step, for one orientation, defocus and pixel size.

``template_ctf_correlation`` is the peer's: CTF and filter multiply the slice.
``image_ctf_correlation`` is our default: CTF and filter act on the image, and the
template's norm is taken after an unwrapped convolution.
"""

from collections.abc import Callable

import numpy as np

from .slices import central_slice


def valid_corner(
    box_shape: tuple[int, int], template_shape: tuple[int, int]
) -> tuple[slice, slice]:
    """The offsets at which the template lies wholly inside the box."""
    (box_h, box_w), (h, w) = box_shape, template_shape
    return slice(0, box_h - h + 1), slice(0, box_w - w + 1)


def border_mean(projection: np.ndarray) -> float:
    """Mean of the outermost pixels, each counted once."""
    border = np.ones(projection.shape, bool)
    border[1:-1, 1:-1] = False
    return float(projection[border].mean())


def normalise_projection(projection: np.ndarray, box_shape: tuple[int, int]) -> np.ndarray:
    """Subtract the border's mean; variance 1 in the zero-padded box.

    The mean enters with (n/N)^2, not n/N: so in the peer, and kept for agreement. Its
    second term also counts (H-h)(W-w) padding pixels where HW - hw would be meant.
    """
    (h, w), (box_h, box_w) = projection.shape, box_shape
    n, box_n = h * w, box_h * box_w
    projection = projection - border_mean(projection)
    mean = projection.mean() * (n / box_n) ** 2
    variance = np.sum((projection - mean) ** 2) + (box_h - h) * (box_w - w) * mean**2
    return projection * np.sqrt(box_n) / np.sqrt(max(variance, 1e-8))


def template_ctf_projection(
    volume_rfft: np.ndarray,
    rotation: np.ndarray,
    projective_filter: np.ndarray,
    ctf: np.ndarray,
    scale: float = 1.0,
    side: int | None = None,
) -> np.ndarray:
    """The filtered, CTF-multiplied projection, before its normalisation: (n, n)."""
    spectrum = central_slice(volume_rfft, rotation, scale, side)
    spectrum[0, 0] = 0.0
    spectrum = -spectrum * projective_filter * ctf
    n = spectrum.shape[0]
    return np.fft.ifftshift(np.fft.irfft2(spectrum, s=(n, n)))


def template_ctf_correlation(
    volume_rfft: np.ndarray,
    rotation: np.ndarray,
    box: np.ndarray,
    projective_filter: np.ndarray,
    ctf: np.ndarray,
    scale: float = 1.0,
    side: int | None = None,
) -> np.ndarray:
    """The peer's score: correlations on the valid corner, (H - h + 1, W - w + 1).

    Args:
        volume_rfft: half volume of the template (:func:`oracles.slices.half_volume`).
        rotation: image frame -> volume frame.
        box: real-space box (H, W) of the filtered, normalised micrograph.
        projective_filter: the micrograph's filter on the template's grid.
        ctf: CTF times B envelope on the template's grid, at the micrograph's pixel size.
        scale: template pixel size / micrograph pixel size.
        side: side of the template, where the volume was padded.
    """
    projection = template_ctf_projection(
        volume_rfft, rotation, projective_filter, ctf, scale, side
    )
    padded = np.zeros(box.shape)
    padded[: projection.shape[0], : projection.shape[1]] = normalise_projection(
        projection, box.shape
    )
    spectrum = np.fft.rfft2(padded)
    spectrum[0, 0] = 0.0
    correlation = np.fft.irfft2(np.conj(spectrum) * np.fft.rfft2(box), s=box.shape)
    return correlation[valid_corner(box.shape, projection.shape)]


def bare_template(
    volume_rfft: np.ndarray,
    rotation: np.ndarray,
    scale: float = 1.0,
    side: int | None = None,
) -> np.ndarray:
    """t: the projection without filter and CTF, contrast inverted, border mean 0.

    The slice keeps its DC; only the border's mean is subtracted.
    """
    spectrum = -central_slice(volume_rfft, rotation, scale, side)
    n = spectrum.shape[0]
    projection = np.fft.ifftshift(np.fft.irfft2(spectrum, s=(n, n)))
    return projection - border_mean(projection)


def filtered_box(
    cut: np.ndarray,
    box_shape: tuple[int, int],
    transfer: Callable[[tuple[int, int]], np.ndarray],
) -> np.ndarray:
    """Y: the cut times F·CTF on its own grid, cropped to the box in its middle."""
    filtered = np.fft.irfft2(np.fft.rfft2(cut) * transfer(cut.shape), s=cut.shape)
    top = (cut.shape[0] - box_shape[0]) // 2
    left = (cut.shape[1] - box_shape[1]) // 2
    return filtered[top : top + box_shape[0], left : left + box_shape[1]]


def unwrapped_norm(
    template: np.ndarray,
    transfer: Callable[[tuple[int, int]], np.ndarray],
    large_side: int | None = None,
) -> float:
    """nu: norm of the template convolved with F·CTF on a grid too large to wrap.

    Args:
        template: t, zero outside its own n x n pixels.
        large_side: side of that grid; default 8 n. It must exceed n + twice the radius
            of the CTF's point spread, lambda * defocus / (resolution * pixel size).
    """
    side = 8 * template.shape[0] if large_side is None else large_side
    padded = np.zeros((side, side))
    padded[: template.shape[0], : template.shape[1]] = template
    spectrum = np.fft.rfft2(padded) * transfer(padded.shape)
    convolved = np.fft.irfft2(spectrum, s=padded.shape)
    return float(np.sqrt(np.sum(convolved**2)))


def image_ctf_correlation(
    volume_rfft: np.ndarray,
    rotation: np.ndarray,
    cut: np.ndarray,
    box_shape: tuple[int, int],
    transfer: Callable[[tuple[int, int]], np.ndarray],
    scale: float = 1.0,
    side: int | None = None,
    large_side: int | None = None,
) -> np.ndarray:
    """Our default score: correlations on the valid corner, (H - h + 1, W - w + 1).

    Args:
        volume_rfft: half volume of the template.
        rotation: image frame -> volume frame.
        cut: the filtered micrograph (pixel variance 1 where the whole band passes), cut
            Q x Q around the box: the box starts at ((Qy - H)//2, (Qx - W)//2) in it.
        box_shape: (H, W).
        transfer: gives F·CTF·B on the half plane of a grid of any real-space shape.
        scale: template pixel size / micrograph pixel size.
        side: side of the template, where the volume was padded.
        large_side: see :func:`unwrapped_norm`.
    """
    template = bare_template(volume_rfft, rotation, scale, side)
    box = filtered_box(cut, box_shape, transfer)
    padded = np.zeros(box_shape)
    padded[: template.shape[0], : template.shape[1]] = template
    correlation = np.fft.irfft2(
        np.conj(np.fft.rfft2(padded)) * np.fft.rfft2(box), s=box_shape
    )
    corner = correlation[valid_corner(box_shape, template.shape)]
    return corner / unwrapped_norm(template, transfer, large_side)
