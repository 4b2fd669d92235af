"""The sections of the preprocessing filters."""

from typing import Annotated, ClassVar, TypeAlias

from jaxrefine.app.config.schema import Rule, Section

_Numbers: TypeAlias = Annotated[
    tuple[float, ...] | None, "a list of finite numbers, or null"
]


class WhiteningFilterConfig(Section):
    """Flattens the micrograph's amplitude spectrum.

    Attributes:
        enabled: Apply it.
        num_freq_bins: Number of bins of the radial spectrum, at least 2; null: from the
            micrograph's size.
        max_freq: Frequency in cycles/px above which the filter is 1; null: no limit.
        do_power_spectrum: True averages power and takes the square root; false averages
            amplitudes.
    """

    enabled: bool = True
    num_freq_bins: int | None = None
    max_freq: float | None = 0.5
    do_power_spectrum: bool = True

    rules: ClassVar = (
        Rule(
            "num_freq_bins",
            lambda c: c.num_freq_bins is None or 2 <= c.num_freq_bins <= 100_000,
            "must be 2 to 100000, or null to choose it by the micrograph's size",
        ),
        Rule(
            "max_freq",
            lambda c: c.max_freq is None or c.max_freq > 0,
            "must be larger than 0 cycles/px (0.5 is Nyquist), or null for no limit",
        ),
    )


class BandpassFilterConfig(Section):
    """Keeps a band of frequencies.

    Attributes:
        enabled: Apply it.
        low_freq_cutoff: Lower end of the band in cycles/px; null: 0.
        high_freq_cutoff: Upper end of the band in cycles/px; null: 1.
        falloff: Width in cycles/px of the cosine ramps outside the band; null: 0.
    """

    enabled: bool = False
    low_freq_cutoff: float | None = None
    high_freq_cutoff: float | None = None
    falloff: float | None = None

    rules: ClassVar = (
        Rule(
            "low_freq_cutoff",
            lambda c: c.low_freq_cutoff is None or c.low_freq_cutoff >= 0,
            "must be 0 cycles/px or more, or null for 0",
        ),
        Rule(
            "low_freq_cutoff",
            lambda c: (
                (c.low_freq_cutoff or 0)
                < (1 if c.high_freq_cutoff is None else c.high_freq_cutoff)
            ),
            "must be lower than high_freq_cutoff, {high_freq_cutoff} "
            "(cycles/px; null is 0 for low and 1 for high)",
        ),
        Rule(
            "falloff",
            lambda c: c.falloff is None or c.falloff >= 0,
            "must be 0 cycles/px or more, or null for 0",
        ),
    )


class ArbitraryCurveFilterConfig(Section):
    """A radial filter given by points, linear between them and 1 outside.

    Attributes:
        enabled: Apply it.
        frequencies: Increasing frequencies in cycles/px, at least two.
        amplitudes: The filter's value at each of them.
    """

    enabled: bool = False
    frequencies: _Numbers = None
    amplitudes: _Numbers = None

    rules: ClassVar = (
        Rule(
            "frequencies",
            lambda c: c.frequencies is not None and len(c.frequencies) >= 2,
            "an enabled curve needs a list of two frequencies or more, in cycles/px",
        ),
        Rule(
            "frequencies",
            lambda c: (
                c.frequencies is None
                or all(
                    a < b for a, b in zip(c.frequencies, c.frequencies[1:], strict=False)
                )
            ),
            "must be increasing",
        ),
        Rule(
            "amplitudes",
            lambda c: c.amplitudes is not None,
            "an enabled curve needs a list of amplitudes, one for each frequency",
        ),
        Rule(
            "amplitudes",
            lambda c: (
                c.amplitudes is None
                or c.frequencies is None
                or len(c.amplitudes) == len(c.frequencies)
            ),
            "must have as many values as frequencies, {frequencies}",
        ),
    )


class PhaseRandomizationFilterConfig(Section):
    """Randomises the phases of high frequencies.

    Attributes:
        enabled: Apply it.
        cuton: Lowest frequency in cycles/px with random phases.
    """

    enabled: bool = False
    cuton: float | None = None

    rules: ClassVar = (
        Rule(
            "cuton",
            lambda c: c.cuton is not None and c.cuton >= 0,
            "enabled phase randomization needs a frequency of 0 cycles/px or more",
        ),
    )


class RandomFourierDropoutConfig(Section):
    """Leaves out Fourier coefficients of the template, chosen at random.

    Attributes:
        enabled: Apply it.
        dropout_fraction: Expected fraction that is left out, at least 0 and less than 1.
        seed: Seed of the choice, a whole number from 0.
    """

    enabled: bool = False
    dropout_fraction: float = 0.1
    seed: int = 0

    rules: ClassVar = (
        Rule(
            "dropout_fraction",
            lambda c: 0 <= c.dropout_fraction < 1,
            "must be 0 or more and less than 1",
        ),
        Rule("seed", lambda c: 0 <= c.seed < 1 << 32, "must be 0 or more, below 2^32"),
    )


class PreprocessingFiltersConfig(Section):
    """Filters, all applied together.

    Attributes:
        whitening_filter: Flattens the spectrum.
        bandpass_filter: Keeps a band.
        arbitrary_curve_filter: A curve given by points.
        phase_randomization_filter: Random phases at high frequencies.
        random_fourier_dropout: Leaves out coefficients of the template.
    """

    whitening_filter: WhiteningFilterConfig = WhiteningFilterConfig()
    bandpass_filter: BandpassFilterConfig = BandpassFilterConfig()
    arbitrary_curve_filter: ArbitraryCurveFilterConfig = ArbitraryCurveFilterConfig()
    phase_randomization_filter: PhaseRandomizationFilterConfig = (
        PhaseRandomizationFilterConfig()
    )
    random_fourier_dropout: RandomFourierDropoutConfig = RandomFourierDropoutConfig()
