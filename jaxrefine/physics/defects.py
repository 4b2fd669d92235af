"""Defective pixels of a micrograph: detected, and filled smoothly.

Runs on the host, in numpy, because messages of a run depend on what is found. Objects that
are bright or dark but smooth (carbon, contamination, fiducials) are image and are kept.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Runs of equal pixels in a row or column. A run is a defect if it is at least this long and
# at least twice as long as chance produces anywhere in the image with probability 1e-3.
_SHORTEST_RUN = 8
_CHANCE = 1e-3
# Values this frequent may spread by themselves; rarer ones that touch a run belong to it.
_RARE = 0.01
_ROUNDS_OF_SPREADING = 16
# Hot and dead pixels deviate by this many standard deviations from the median of their
# block and from that of their neighbourhood. Counting noise reaches 6 or 7.
FAR = 20.0
_BLOCK = 64
_NEIGHBOURHOOD = 7
# Distance of the quartiles of normal noise from its median, in standard deviations.
_QUARTILE = 0.6745
# For sparse counts, mostly 0: limit as a multiple of the 99.9 % quantile.
_SPARSE = 5.0
# Rows and columns are defective if differences between neighbouring pixels are below the
# first fraction of the usual; adjacent ones also below the second. Fourier cropping smears
# noise into a band of one value, decaying as 1/√distance.
_FLAT, _FLATTENED = 0.25, 0.5
# Number of lines into which a step may ring; lines are removed if their level deviates by
# the first factor times the usual difference of neighbours and by the second times the
# deviation of lines further inside. At an edge, and where a band was found.
_RINGING = ((4, 1.0, 20.0), (16, 0.3, 8.0))
_PAIRS = 1024  # pairs of neighbours by which a line is judged
_SURE = 100  # differing pixels of a line that are sufficient to judge it
_LINES = 128  # rows and columns on which the frequency of a value is measured
_ENOUGH = 1_000_000  # number of pixels for quantiles


class Defects(NamedTuple):
    """Defective pixels by kind; each pixel has at most one kind.

    Attributes:
        not_finite: NaN or infinite.
        constant: In rows, columns or blocks of one value; or in whole rows and columns of
            almost one value.
        far: Single pixels, or a few together, that deviate strongly from all around them.
    """

    not_finite: Bool[np.ndarray, "Ny Nx"]
    constant: Bool[np.ndarray, "Ny Nx"]
    far: Bool[np.ndarray, "Ny Nx"]

    @property
    def mask(self) -> Bool[np.ndarray, "Ny Nx"]:
        """Mask of all defective pixels."""
        return self.not_finite | self.constant | self.far


def find_defects(image: Float[np.ndarray, "Ny Nx"]) -> Defects:
    """Find dead and hot pixels, and bands and blocks of one value.

    Args:
        image: Raw micrograph with any gain and offset, including sparse counts.
    """
    not_finite = ~np.isfinite(image)
    constant = _constant(image) & ~not_finite
    constant |= _flat_lines(image, constant | not_finite) & ~not_finite
    spoilt = not_finite | constant
    if spoilt.all():
        return Defects(not_finite, constant, np.zeros_like(spoilt))
    return Defects(not_finite, constant, _far(fill_defects(image, spoilt), spoilt))


def fill_defects(
    image: Float[np.ndarray, "Ny Nx"], mask: Bool[np.ndarray, "Ny Nx"]
) -> Float[np.ndarray, "Ny Nx"]:
    """Continue an image smoothly into the pixels of a mask, whose values are ignored.

    Each filled pixel is a mean of its surroundings over a distance that grows with that to
    the nearest valid pixel: averages over increasingly large squares are computed, then
    interpolated back linearly (Gortler et al., The Lumigraph, SIGGRAPH 1996). No noise is
    added, so the filled part contains only slow variations of the surroundings.

    Args:
        image: The image.
        mask: Pixels to fill; if it covers everything, the image is returned unchanged.
    """
    if not mask.any() or mask.all():
        return image
    known = np.where(mask, 0, image).astype(np.float32)
    return _pull_push(known, (~mask).astype(np.float32)).astype(image.dtype)


def _pull_push(
    values: Float[np.ndarray, "h w"], weights: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Keep values of weight 1, continue into weight 0, and blend in between."""
    y, x = np.nonzero(weights < 1)
    if not len(y) or max(values.shape) == 1:
        return values
    total = _pairs_added(weights)
    mean = _pairs_added(weights * values) / np.where(total > 0, total, 1)
    # Half of the pixels of a square are sufficient for its mean.
    coarse = _pull_push(mean, np.minimum(1.0, total / 2))
    weight, filled = weights[y, x], values.copy()
    filled[y, x] = weight * values[y, x] + (1 - weight) * _between(coarse, y, x)
    return filled


def _between(
    coarse: Float[np.ndarray, "h w"], y: Int[np.ndarray, " n"], x: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Interpolate linearly between the centres of coarse pixels, at finer ones."""
    (y, beside_y), (x, beside_x) = (
        (at // 2, np.clip(at // 2 + 2 * (at % 2) - 1, 0, n - 1))
        for at, n in zip((y, x), coarse.shape, strict=True)
    )
    here = 0.75 * coarse[y, x] + 0.25 * coarse[y, beside_x]
    beside = 0.75 * coarse[beside_y, x] + 0.25 * coarse[beside_y, beside_x]
    return 0.75 * here + 0.25 * beside


def _pairs_added(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "H W"]:
    """Sums of 2 x 2 pixels; an odd edge is padded with 0."""
    height, width = values.shape
    even = np.pad(values, ((0, int(height % 2)), (0, int(width % 2))))  # pyright: ignore[reportCallIssue, reportArgumentType]
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).sum(axis=(1, 3))


def _constant(image: Float[np.ndarray, "Ny Nx"]) -> Bool[np.ndarray, "Ny Nx"]:
    """Runs of one value, along rows and columns, that are longer than chance explains."""
    mask = np.zeros(image.shape, bool)
    rare: set[float] = set()
    pairs = _share_of_pairs(image)
    for turned, marked in ((image, mask), (image.T, mask.T)):
        row, start, stop = _runs(turned)
        values, which = np.unique(turned[row, start], return_inverse=True)
        shares = np.asarray([_share(value, image) for value in values.tolist()])
        needed = _needed_runs(np.maximum(shares, pairs), image.size)
        long = stop - start >= needed[which]
        found = np.unique(which[long])
        rare |= set(values[found[shares[found] < _RARE]].tolist())
        for y, first, last in zip(row[long], start[long], stop[long], strict=True):
            marked[y, first:last] = True
    return _spread(mask, np.isin(image, sorted(rare)), image) if rare else mask


def _flat_lines(
    image: Float[np.ndarray, "Ny Nx"], spoilt: Bool[np.ndarray, "Ny Nx"]
) -> Bool[np.ndarray, "Ny Nx"]:
    """Whole rows and columns of almost one value, as ringing leaves of a constant band.

    Also the outermost ones whose level deviates strongly, because noise beyond rings in.
    """
    mask = np.zeros(image.shape, bool)
    values = np.where(spoilt, 0, image).astype(np.float32)
    for turned, marked, out in ((values, mask, spoilt), (values.T, mask.T, spoilt.T)):
        at = np.arange(1, turned.shape[1], max(1, turned.shape[1] // _PAIRS))
        sound = ~(out[:, at] | out[:, at - 1])
        step = np.where(sound, np.abs(turned[:, at] - turned[:, at - 1]), 0)
        count = sound.sum(axis=1)
        changes = np.median(np.count_nonzero(step, axis=1))
        cap = np.quantile(step, 0.99) if step.size else 0.0
        each = np.minimum(step, cap).sum(axis=1) / np.maximum(count, 1)
        usual = float(np.median(each))
        if usual == 0 or changes < _SURE:
            continue
        share = np.where(count < _SURE, 1.0, each / usual)
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            level = np.nanmedian(np.where(sound, turned[:, at], np.nan), axis=1)
        bands = [
            (first, last)
            for first, last in _true_runs(share < _FLATTENED)
            if share[first:last].min() < _FLAT
        ]
        lenient = bool(bands)  # ringing at one end also occurs at the other
        for first, last in bands:
            marked[max(0, first - 1) : last + 1] = True
            before, after = level[:first][::-1], level[last:]
            marked[max(0, first - _lines_off(before, usual, lenient)) : first] = True
            marked[last : last + _lines_off(after, usual, lenient)] = True
        marked[: _lines_off(level, usual, lenient)] = True
        marked[::-1][: _lines_off(level[::-1], usual, lenient)] = True
    return mask


def _true_runs(values: Bool[np.ndarray, " n"]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(values, prepend=False, append=False)).tolist()
    yield from zip(edges[::2], edges[1::2], strict=True)


def _lines_off(level: Float[np.ndarray, " n"], usual: float, lenient: bool) -> int:
    """Number of first lines up to the last one whose level deviates strongly.

    Args:
        level: Level of each line, starting at an edge or a band.
        usual: Usual difference of neighbouring pixels.
        lenient: Whether a band was found, so that ringing is expected.
    """
    reach, far, many = _RINGING[lenient]
    if len(level) < 3 * reach:
        return 0
    inner = level[reach : 3 * reach]
    middle = np.median(inner)
    limit = max(far * usual, many * float(np.median(np.abs(inner - middle))))
    off = np.flatnonzero(np.abs(level[:reach] - middle) > limit)
    return int(off[-1]) + 1 if len(off) else 0


def _runs(
    image: Float[np.ndarray, "Ny Nx"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Row, first column and column after the last, of runs of equal pixels."""
    equal = np.zeros((image.shape[0], image.shape[1] + 1), np.int8)
    equal[:, 1:-1] = image[:, 1:] == image[:, :-1]
    change = np.diff(equal.ravel())
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    long = last - first + 1 >= _SHORTEST_RUN
    row, start = np.divmod(first[long], equal.shape[1])
    return row, start, start + (last - first)[long] + 1


def _in_mixed_lines(equal: Bool[np.ndarray, "Ny Nx"]) -> float:
    """Fraction of true pixels in the median row, without rows that are true throughout.

    A band fills whole rows, which are excluded, or a small part of each.
    """
    shares = equal[:: max(1, len(equal) // _LINES)].mean(axis=1)
    mixed = shares[shares < 1]
    return float(np.median(mixed)) if len(mixed) else 0.0


def _share(value: float, image: Float[np.ndarray, "Ny Nx"]) -> float:
    """Frequency of a value in rows or columns that hold other values as well."""
    some, columns = image[:: max(1, len(image) // _LINES)], image.T
    some_columns = columns[:: max(1, len(columns) // _LINES)]
    return min(_in_mixed_lines(some == value), _in_mixed_lines(some_columns == value))


def _share_of_pairs(image: Float[np.ndarray, "Ny Nx"]) -> float:
    """Fraction of equal neighbours: smooth or binned counts have texture."""
    return min(
        _in_mixed_lines(turned[:, 1:] == turned[:, :-1]) for turned in (image, image.T)
    )


def _needed_runs(shares: Float[np.ndarray, " v"], pixels: int) -> Float[np.ndarray, " v"]:
    """Length above which runs of values this frequent are neither chance nor texture."""
    shares = np.clip(shares, 1 / pixels, 1 - 1e-9)
    by_chance = np.log(_CHANCE / pixels) / np.log(shares)
    return np.maximum(_SHORTEST_RUN, 2 * by_chance)


def _spread(
    mask: Bool[np.ndarray, "Ny Nx"],
    candidates: Bool[np.ndarray, "Ny Nx"],
    image: Float[np.ndarray, "Ny Nx"],
) -> Bool[np.ndarray, "Ny Nx"]:
    """Extend the mask by candidates that touch it and have the same value.

    The tips of an oblique block are shorter than runs that could not occur by chance.
    """
    for _ in range(_ROUNDS_OF_SPREADING):
        grown = mask.copy()
        for marked, new, values, may in (
            (mask, grown, image, candidates),
            (mask.T, grown.T, image.T, candidates.T),
        ):
            equal = values[1:] == values[:-1]
            new[1:] |= marked[:-1] & equal & may[1:]
            new[:-1] |= marked[1:] & equal & may[:-1]
        if (grown == mask).all():
            break
        mask = grown
    return mask


def _far(
    image: Float[np.ndarray, "Ny Nx"], filled: Bool[np.ndarray, "Ny Nx"]
) -> Bool[np.ndarray, "Ny Nx"]:
    """Pixels, at most a few together, that deviate from their block and surroundings."""
    low, middle, high = _block_quartiles(image)
    away = image - _of_pixels(middle, image.shape)
    sound = away[~filled]
    sound = sound[:: max(1, sound.size // _ENOUGH)]
    spread = np.maximum(high - low, np.subtract(*np.quantile(sound, (0.75, 0.25))))
    away = np.abs(away)
    if spread.all():
        limit = _of_pixels(FAR / (2 * _QUARTILE) * spread, image.shape)
    else:
        limit = np.full(image.shape, _limit_of_sparse_counts(np.abs(sound)), np.float32)
    mask = np.zeros(image.shape, bool)
    y, x = np.nonzero(away > limit)
    if not len(y):
        return mask
    padded = np.pad(image, _NEIGHBOURHOOD // 2, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (_NEIGHBOURHOOD,) * 2)
    for some in np.array_split(np.arange(len(y)), 1 + len(y) // 100_000):
        there = y[some], x[some]
        median = np.median(around[there], axis=(1, 2))
        mask[there] = np.abs(image[there] - median) > limit[there]
    return mask


def _limit_of_sparse_counts(away: Float[np.ndarray, " n"]) -> float:
    """Limit for counts that are 0 in most pixels, which have no usable quartiles."""
    most = float(np.quantile(away, 0.999))
    limit = max(FAR * float(away[away <= most].std()), _SPARSE * most)
    return limit if limit > 0 else float("inf")


def _edges(length: int) -> Int[np.ndarray, " b"]:
    """Boundaries of the blocks along an axis."""
    return np.linspace(0, length, max(1, round(length / _BLOCK)) + 1).astype(int)


def _block_quartiles(image: Float[np.ndarray, "Ny Nx"]) -> Float[np.ndarray, "3 by bx"]:
    """The three quartiles of each block, from every other row and column."""
    rows, columns = (_edges(length) for length in image.shape)
    quartiles = [
        [
            np.quantile(image[top:bottom:2, left:right:2], (0.25, 0.5, 0.75))
            for left, right in itertools.pairwise(columns)
        ]
        for top, bottom in itertools.pairwise(rows)
    ]
    return np.moveaxis(np.asarray(quartiles, np.float32), -1, 0)


def _of_pixels(
    blocks: Float[np.ndarray, "by bx"], shape: tuple[int, ...]
) -> Float[np.ndarray, "Ny Nx"]:
    """For each pixel, the value of its block."""
    rows, columns = (np.diff(_edges(length)) for length in shape)
    return np.repeat(np.repeat(blocks, rows, axis=0), columns, axis=1)
