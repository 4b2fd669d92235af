"""Pixels of a micrograph that are no image: found, and filled without a step.

On the host, in plain numpy: what is found decides what a run says of a micrograph. What
is bright or dark but smooth (carbon, contamination, fiducials) is image, and stays.
"""

import itertools
import warnings
from collections.abc import Iterator
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
# Rows and columns whose pixels differ from their neighbours by so small a share of what is
# usual are no image, and those that touch them and stay below the other. Fourier cropping
# smears noise into a band of one value, as 1/√distance.
_FLAT, _FLATTENED = 0.25, 0.5
# Lines in which a step may ring; their level is off by so much of what neighbours usually
# differ by, and so many times more than lines further in are: at an edge, and where a band
# was found.
_RINGING = ((4, 1.0, 20.0), (16, 0.3, 8.0))
_PAIRS = 1024  # neighbours on a line, by which it is judged
_SURE = 100  # pixels of a line that differ, by which that is told
_LINES = 128  # rows and columns on which a value's frequency is measured
_ENOUGH = 1_000_000  # pixels for quantiles


class Defects(NamedTuple):
    """Where an image is none, by kind; a pixel is of one kind.

    Attributes:
        not_finite: NaN or infinite.
        constant: In rows, columns or blocks of one value; or in whole rows and columns
            of nearly one.
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
    constant |= _flat_lines(image, constant | not_finite) & ~not_finite
    spoilt = not_finite | constant
    if spoilt.all():
        return Defects(not_finite, constant, np.zeros_like(spoilt))
    return Defects(not_finite, constant, _far(fill_defects(image, spoilt), spoilt))


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
    known = np.where(mask, 0, image).astype(np.float32)
    return _pull_push(known, (~mask).astype(np.float32)).astype(image.dtype)


def _pull_push(
    values: Float[np.ndarray, "h w"], weights: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Values where the weight is 1, continued where it is 0, a blend between."""
    y, x = np.nonzero(weights < 1)
    if not len(y) or max(values.shape) == 1:
        return values
    total = _pairs_added(weights)
    mean = _pairs_added(weights * values) / np.where(total > 0, total, 1)
    # Half of a square's pixels are enough to stand for it.
    coarse = _pull_push(mean, np.minimum(1.0, total / 2))
    weight, filled = weights[y, x], values.copy()
    filled[y, x] = weight * values[y, x] + (1 - weight) * _between(coarse, y, x)
    return filled


def _between(
    coarse: Float[np.ndarray, "h w"], y: Int[np.ndarray, " n"], x: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Values at finer pixels, linear between the centres of the coarse ones."""
    (y, beside_y), (x, beside_x) = (
        (at // 2, np.clip(at // 2 + 2 * (at % 2) - 1, 0, n - 1))
        for at, n in zip((y, x), coarse.shape, strict=True)
    )
    here = 0.75 * coarse[y, x] + 0.25 * coarse[y, beside_x]
    beside = 0.75 * coarse[beside_y, x] + 0.25 * coarse[beside_y, beside_x]
    return 0.75 * here + 0.25 * beside


def _pairs_added(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "H W"]:
    """Sums of 2 x 2 pixels; beyond an odd edge is nothing."""
    height, width = values.shape
    even = np.pad(values, ((0, int(height % 2)), (0, int(width % 2))))  # pyright: ignore[reportCallIssue, reportArgumentType]
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).sum(axis=(1, 3))


def _constant(image: Float[np.ndarray, "Ny Nx"]) -> Bool[np.ndarray, "Ny Nx"]:
    """Runs of one value, along rows and columns, that are longer than chance allows."""
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
    """Whole rows and columns of nearly one value, as ringing leaves of a constant band.

    And the outermost ones, whose level is far off: noise rings into them from beyond.
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
        lenient = bool(bands)  # what rings into one end rings into the other
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
    """How many of the first lines are, or lie before, one whose level is far off.

    Args:
        level: Of lines, those near to an edge or a band first.
        usual: Difference of neighbouring pixels.
        lenient: Whether a band was found, so that ringing is to be expected.
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
    """Row, first column and column after the last of runs of equal pixels, if not short."""
    equal = np.zeros((image.shape[0], image.shape[1] + 1), np.int8)
    equal[:, 1:-1] = image[:, 1:] == image[:, :-1]
    change = np.diff(equal.ravel())
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    long = last - first + 1 >= _SHORTEST_RUN
    row, start = np.divmod(first[long], equal.shape[1])
    return row, start, start + (last - first)[long] + 1


def _in_mixed_lines(equal: Bool[np.ndarray, "Ny Nx"]) -> float:
    """The share of what is true in the median row, of those that are not true throughout.

    A band fills rows, which do not count, or little of each.
    """
    shares = equal[:: max(1, len(equal) // _LINES)].mean(axis=1)
    mixed = shares[shares < 1]
    return float(np.median(mixed)) if len(mixed) else 0.0


def _share(value: float, image: Float[np.ndarray, "Ny Nx"]) -> float:
    """How frequent a value is where it is not all there is, along rows or columns."""
    some, columns = image[:: max(1, len(image) // _LINES)], image.T
    some_columns = columns[:: max(1, len(columns) // _LINES)]
    return min(_in_mixed_lines(some == value), _in_mixed_lines(some_columns == value))


def _share_of_pairs(image: Float[np.ndarray, "Ny Nx"]) -> float:
    """How often neighbours are equal: smooth or binned counts have texture."""
    return min(
        _in_mixed_lines(turned[:, 1:] == turned[:, :-1]) for turned in (image, image.T)
    )


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


def _far(
    image: Float[np.ndarray, "Ny Nx"], filled: Bool[np.ndarray, "Ny Nx"]
) -> Bool[np.ndarray, "Ny Nx"]:
    """Pixels, no more than a few together, far from their block and from all around."""
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
    """Counts that are 0 in most pixels have no quartiles, and reach far by chance."""
    most = float(np.quantile(away, 0.999))
    limit = max(FAR * float(away[away <= most].std()), _SPARSE * most)
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
