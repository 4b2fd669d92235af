"""Pixels of a micrograph that are no image: found, and filled without a step.

On the host, in plain numpy: what is found decides what a run says of a micrograph. What
is bright or dark but smooth (carbon, contamination, fiducials) is image, and stays.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Equal pixels in a row or column. A run is no image where it is this long and longer, twice
# over, than chance makes a run of that value anywhere in the image once in a thousand.
_SHORTEST_RUN = 8
_CHANCE = 1e-3
# Values this frequent spread by themselves; rarer ones that touch a run belong to it.
_RARE = 0.01
_ROUNDS_OF_SPREADING = 16
# Hot and dead pixels differ by so many standard deviations both from the median of their
# block and from that of their neighbourhood. Counting noise reaches 6 or 7.
FAR = 20.0
_BLOCK = 64
_NEIGHBOURHOOD = 7
# Quartiles of normal noise are so far from its median.
_QUARTILE = 0.6745
# Of sparse counts, most of them 0: so many times the 99.9 % quantile.
_SPARSE = 5.0
_LINES = 128  # rows and columns on which a value's frequency is measured


class Defects(NamedTuple):
    """Where an image is none, by kind; a pixel is of one kind.

    Attributes:
        not_finite: NaN or infinite.
        constant: In rows, columns or blocks of one value.
        far: Single pixels, or a few together, far from all around them.
    """

    not_finite: Bool[np.ndarray, "Ny Nx"]
    constant: Bool[np.ndarray, "Ny Nx"]
    far: Bool[np.ndarray, "Ny Nx"]

    @property
    def mask(self) -> Bool[np.ndarray, "Ny Nx"]:
        """All of them."""
        return self.not_finite | self.constant | self.far


def find_defects(image: Float[np.ndarray, "Ny Nx"]) -> Defects:
    """Find what no electron made: dead and hot pixels, bands and blocks of one value.

    Args:
        image: Raw micrograph, any gain and offset; counts, however sparse, too.
    """
    not_finite = ~np.isfinite(image)
    constant = _constant(image) & ~not_finite
    spoilt = not_finite | constant
    if spoilt.all():
        return Defects(not_finite, constant, np.zeros_like(spoilt))
    return Defects(not_finite, constant, _far(fill_defects(image, spoilt)))


def fill_defects(
    image: Float[np.ndarray, "Ny Nx"], mask: Bool[np.ndarray, "Ny Nx"]
) -> Float[np.ndarray, "Ny Nx"]:
    """Continue an image smoothly into the pixels of a mask, which are not looked at.

    Each takes the mean of what is around it, over a distance that grows with that to the
    nearest sound pixel: averages over ever larger squares are pulled together, then pushed
    back by linear interpolation (Gortler et al., The Lumigraph, SIGGRAPH 1996). No noise is
    made up: the filled part holds no power but that of the surroundings' slow changes.

    Args:
        image: The image.
        mask: What to fill; if it is everything, the image stays as it is.
    """
    if not mask.any() or mask.all():
        return image
    known = np.where(mask, 0, image).astype(np.float64)
    return np.where(mask, _pull_push(known, 1.0 - mask), image).astype(image.dtype)


def _pull_push(
    values: Float[np.ndarray, "h w"], weights: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Values where the weight is 1, continued where it is 0, a blend between."""
    if weights.all() or max(values.shape) == 1:
        return values
    total = _pairs_added(weights)
    mean = _pairs_added(weights * values) / np.where(total > 0, total, 1)
    # Half of a square's pixels are enough to stand for it.
    coarse = _pull_push(mean, np.minimum(1.0, total / 2))
    finer = _doubled(_doubled(coarse, values.shape[0]).T, values.shape[1]).T
    return weights * values + (1 - weights) * finer


def _pairs_added(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "H W"]:
    """Sums of 2 x 2 pixels; beyond an odd edge is nothing."""
    height, width = values.shape
    even = np.pad(values, ((0, int(height % 2)), (0, int(width % 2))))
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).sum(axis=(1, 3))


def _doubled(values: Float[np.ndarray, "h w"], length: int) -> Float[np.ndarray, "n w"]:
    """Twice as many rows, interpolated linearly between the centres of the old ones."""
    before = np.concatenate([values[:1], values[:-1]])
    after = np.concatenate([values[1:], values[-1:]])
    both = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis=1)
    return both.reshape(-1, values.shape[1])[:length]


def _constant(image: Float[np.ndarray, "Ny Nx"]) -> Bool[np.ndarray, "Ny Nx"]:
    """Runs of one value, along rows and columns, that are longer than chance allows."""
    mask = np.zeros(image.shape, bool)
    rare: set[float] = set()
    for turned, marked in ((image, mask), (image.T, mask.T)):
        row, start, stop = _runs(turned)
        values, which = np.unique(turned[row, start], return_inverse=True)
        shares = np.asarray([_share(value, image) for value in values])
        long = stop - start >= _needed_runs(shares, image.size)[which]
        rare |= set(values[np.unique(which[long])][shares[np.unique(which[long])] < _RARE])
        for y, first, last in zip(row[long], start[long], stop[long], strict=True):
            marked[y, first:last] = True
    return _spread(mask, np.isin(image, sorted(rare)), image) if rare else mask


def _runs(
    image: Float[np.ndarray, "Ny Nx"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Row, first column and column after the last of runs of equal pixels, if not short."""
    equal = np.zeros((image.shape[0], image.shape[1] + 1), np.int8)
    equal[:, 1:-1] = image[:, 1:] == image[:, :-1]
    change = np.diff(equal.ravel())
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    long = last - first + 1 >= _SHORTEST_RUN
    row, start = np.divmod(first[long], equal.shape[1])
    return row, start, start + (last - first)[long] + 1


def _share(value: float, image: Float[np.ndarray, "Ny Nx"]) -> float:
    """How frequent a value is where it is not all there is: in the median row or column.

    The smaller of the two, as a band fills a part of every row that it crosses.
    """
    shares = []
    for turned in (image, image.T):
        equal = (turned[:: max(1, len(turned) // _LINES)] == value).mean(axis=1)
        mixed = equal[equal < 1]
        shares.append(np.median(mixed) if len(mixed) else 0.0)
    return float(min(shares))


def _needed_runs(shares: Float[np.ndarray, " v"], pixels: int) -> Float[np.ndarray, " v"]:
    """From which length on runs of values so frequent are no chance, and no texture."""
    shares = np.clip(shares, 1 / pixels, 1 - 1e-9)
    by_chance = np.log(_CHANCE / pixels) / np.log(shares)
    return np.maximum(_SHORTEST_RUN, 2 * by_chance)


def _spread(
    mask: Bool[np.ndarray, "Ny Nx"],
    candidates: Bool[np.ndarray, "Ny Nx"],
    image: Float[np.ndarray, "Ny Nx"],
) -> Bool[np.ndarray, "Ny Nx"]:
    """The mask, with candidates that touch it and have the value of what they touch.

    The tips of an oblique block are shorter than any run that chance would not make.
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


def _far(image: Float[np.ndarray, "Ny Nx"]) -> Bool[np.ndarray, "Ny Nx"]:
    """Pixels, no more than a few together, far from their block and from all around."""
    low, middle, high = _block_quartiles(image)
    away = np.abs(image - _of_pixels(middle, image.shape))
    deviation = np.maximum(high - low, np.median(high - low)) / (2 * _QUARTILE)
    if deviation.all():
        limit = _of_pixels(FAR * deviation, image.shape)
    else:
        limit = np.full(image.shape, _limit_of_sparse_counts(away), np.float32)
    mask = np.zeros(image.shape, bool)
    y, x = np.nonzero(away > limit)
    padded = np.pad(image, _NEIGHBOURHOOD // 2, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (_NEIGHBOURHOOD,) * 2)
    for some in np.array_split(np.arange(len(y)), 1 + len(y) // 100_000):
        there = y[some], x[some]
        median = np.median(around[there], axis=(1, 2))
        mask[there] = np.abs(image[there] - median) > limit[there]
    return mask


def _limit_of_sparse_counts(away: Float[np.ndarray, "Ny Nx"]) -> float:
    """Counts that are 0 in most pixels have no quartiles, and reach far by chance."""
    some = away.ravel()[:: max(1, away.size // 1_000_000)]
    most = float(np.quantile(some, 0.999))
    limit = max(FAR * float(some[some <= most].std()), _SPARSE * most)
    return limit if limit > 0 else float("inf")


def _edges(length: int) -> Int[np.ndarray, " b"]:
    """Where blocks begin and end along an axis."""
    return np.linspace(0, length, max(1, round(length / _BLOCK)) + 1).astype(int)


def _block_quartiles(image: Float[np.ndarray, "Ny Nx"]) -> Float[np.ndarray, "3 by bx"]:
    """The three quartiles of each block, by every other row and column."""
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
    """Of each pixel the value of its block."""
    rows, columns = (np.diff(_edges(length)) for length in shape)
    return np.repeat(np.repeat(blocks, rows, axis=0), columns, axis=1)
