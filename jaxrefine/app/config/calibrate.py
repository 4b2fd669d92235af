"""The section of the calibration: parameters that particles share."""

from typing import Annotated, ClassVar

from jaxrefine.app.config.schema import Rule, Section

# Parameters of the optics, and of a micrograph.
OF_OPTICS = (
    *("pixel_size", "magnification", "beam_tilt", "trefoil", "even_zernikes"),
    *("spherical_aberration", "amplitude_contrast", "phase_shift", "b_factor"),
)
OF_MICROGRAPHS = ("defocus", "astigmatism", "defocus_plane")
_KNOWN = (*OF_OPTICS, *OF_MICROGRAPHS)
_WORDS = f"a list of {', '.join(_KNOWN)}"
_COLUMN = "the name of a column, all, or auto"


class CalibrateGroupsConfig(Section):
    """Groups of particles that share a parameter: equal values in a column.

    `all`: all particles. `auto`: the column optics_group if the table has it, else all.

    Attributes:
        pixel_size: Column that groups the pixel size.
        magnification: The same of the anisotropic magnification.
        beam_tilt: The same of the beam tilt.
        trefoil: The same of the trefoil.
        even_zernikes: The same of the even Zernike terms.
        spherical_aberration: The same of Cs.
        amplitude_contrast: The same of the amplitude contrast.
        phase_shift: The same of the phase shift.
        b_factor: The same of the B-factor.
        defocus: The same of the mean defocus.
        astigmatism: The same of the astigmatism.
        defocus_plane: The same of the defocus plane.
    """

    pixel_size: Annotated[str, _COLUMN] = "auto"
    magnification: Annotated[str, _COLUMN] = "auto"
    beam_tilt: Annotated[str, _COLUMN] = "auto"
    trefoil: Annotated[str, _COLUMN] = "auto"
    even_zernikes: Annotated[str, _COLUMN] = "auto"
    spherical_aberration: Annotated[str, _COLUMN] = "auto"
    amplitude_contrast: Annotated[str, _COLUMN] = "auto"
    phase_shift: Annotated[str, _COLUMN] = "auto"
    b_factor: Annotated[str, _COLUMN] = "auto"
    defocus: Annotated[str, _COLUMN] = "micrograph_path"
    astigmatism: Annotated[str, _COLUMN] = "micrograph_path"
    defocus_plane: Annotated[str, _COLUMN] = "micrograph_path"


class CalibrateConfig(Section):
    """The joint fit of `jaxrefine calibrate`; a refinement ignores this section.

    Attributes:
        parameters: The parameters to fit: some of pixel_size, magnification (anisotropic),
            beam_tilt, trefoil, even_zernikes, spherical_aberration, amplitude_contrast,
            phase_shift, b_factor; and for micrographs defocus, astigmatism, defocus_plane.
        groups: The groups of particles that share them.
        defocus_sigma: Standard deviation in Å of the particles' own defocus around the
            micrograph's defocus or plane; if neither is fitted, around the table's. `auto`:
            estimated from the particles, in a fit with 100 Å.
        robust: Weight picks by the probability that they are particles.
        held_out: Also fit half of the micrographs, and score the others with the result.
        likelihood_ratio: Also fit with each parameter of the optics held at its start, for
            its gain in log-likelihood without approximation.
        pixel_size_range: Range of the first, coarse scan to either side, as a fraction of
            the pixel size; 0: none.
        defocus_range: The same for the mean defocus, in Å.
        beam_tilt_range: The same for the beam tilt, in mrad.
        max_passes: Largest number of passes over all particles in each fit.
    """

    parameters: Annotated[tuple[str, ...], _WORDS] = (
        *("pixel_size", "magnification", "beam_tilt", "defocus", "defocus_plane"),
    )
    groups: CalibrateGroupsConfig = CalibrateGroupsConfig()
    defocus_sigma: Annotated[float | str, "a number of Å, or auto"] = 100.0
    robust: bool = True
    held_out: bool = True
    likelihood_ratio: bool = False
    pixel_size_range: float = 0.03
    defocus_range: float = 450.0
    beam_tilt_range: float = 2.0
    max_passes: int = 25

    rules: ClassVar = (
        Rule(
            "parameters",
            lambda c: (
                c.parameters
                and set(c.parameters) <= set(_KNOWN)
                and len(set(c.parameters)) == len(c.parameters)
            ),
            f"must be {_WORDS}, each once",
        ),
        Rule(
            "defocus_sigma",
            lambda c: (
                c.defocus_sigma == "auto"
                if isinstance(c.defocus_sigma, str)
                else c.defocus_sigma > 0
            ),
            "must be larger than 0 Å, or auto",
        ),
        Rule(
            "pixel_size_range",
            lambda c: 0 <= c.pixel_size_range <= 0.2,
            "must be a share of the pixel size, 0 … 0.2, such as 0.03",
        ),
        Rule(
            "defocus_range",
            lambda c: 0 <= c.defocus_range <= 5000,
            "must be 0 … 5000 Å",
        ),
        Rule(
            "beam_tilt_range",
            lambda c: 0 <= c.beam_tilt_range <= 20,
            "must be 0 … 20 mrad",
        ),
        Rule("max_passes", lambda c: c.max_passes >= 1, "must be 1 or more"),
    )
