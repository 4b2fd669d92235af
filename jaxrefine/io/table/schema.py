"""The columns of the particle table: the only list of their names, units and meanings.

Reading, writing, the results of a run and its checkpoint all use this list.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Column:
    """One column of the particle table.

    Attributes:
        name: Header of the column.
        unit: Its unit, "-" for none.
        kind: "integer", "number" or "text".
        use: "required": read, must be present. "optional": read if present. "start":
            written, and read as the starting value if present. "output": written.
            "polished": written if particles were polished. "envelope": written if they
            were refined with a template envelope. "marked": written if the run looked for
            it. "partner": written by a constrained search. "compared": written by a
            comparison of references. "carried": copied without being
            read. "aberration": read if present, by `jaxrefine.io.table.aberrations`.
        meaning: What it holds.
        written: As "float32" (the shortest text with the same value), "whole" (number),
            "N decimals" (at most) or "text"; "" if it is not written.
        field: Field that holds the values: "optics.NAME" is a field of `Optics`, read from
            the column; "refined.NAME" a field of `Refined`, written to the column.
        ours: Whether jaxrefine adds the column to Leopard-EM's.
    """

    name: str
    unit: str
    kind: str
    use: str
    meaning: str
    written: str = ""
    field: str = ""
    ours: bool = False

    @property
    def required(self) -> bool:
        """Whether a table must have the column."""
        return self.use == "required"


# In the order of Leopard-EM's refined tables. Fields: name, unit, kind, use, meaning,
# written, field.
_LEOPARD_EM = """
particle_index|-|integer|carried|number of the particle; need not be unique
mip|-|number|optional|correlation at the best pose of the match
scaled_mip|-|number|optional|z-score at the best pose of the match
refined_mip|-|number|output|correlation at the best pose of the refinement|float32|refined.correlation
refined_scaled_mip|-|number|output|z-score at the best pose of the refinement|float32|refined.z_score
correlation_mean|-|number|optional|mean of the correlation over all poses of the match
correlation_variance|-|number|optional|its variance or standard deviation (see below)
total_correlations|-|integer|carried|number of poses of the match
pos_x|px|integer|required|top-left corner of the template in the micrograph, x
pos_y|px|integer|required|the same, y
pos_x_img|px|integer|carried|centre of the particle in the micrograph, x
pos_y_img|px|integer|carried|the same, y
pos_x_img_angstrom|Å|number|carried|centre of the particle in the micrograph, x
pos_y_img_angstrom|Å|number|carried|the same, y
refined_pos_x|px|integer|start|refined top-left corner, x|whole
refined_pos_y|px|integer|start|the same, y|whole
refined_pos_x_img|px|integer|output|refined centre: corner + template side // 2, x|whole
refined_pos_y_img|px|integer|output|the same, y|whole
refined_pos_x_img_angstrom|Å|number|output|refined centre in px times pixel_size, x|4 decimals
refined_pos_y_img_angstrom|Å|number|output|the same, y|4 decimals
phi|deg|number|required|first Euler angle (intrinsic ZYZ)
theta|deg|number|required|second Euler angle
psi|deg|number|required|third Euler angle
refined_phi|deg|number|start|refined phi, in [0, 360)|4 decimals
refined_theta|deg|number|start|refined theta, in [0, 180]|4 decimals
refined_psi|deg|number|start|refined psi, in [0, 360)|4 decimals
original_offset_phi|deg|number|partner|phi of the best offset of the partner, about the axis of the search|4 decimals
original_offset_theta|deg|number|partner|theta of this offset|4 decimals
original_offset_psi|deg|number|partner|psi of this offset|4 decimals
relative_defocus|Å|number|required|defocus of the particle minus that of the micrograph
refined_relative_defocus|Å|number|start|the same, refined|2 decimals
defocus_u|Å|number|required|defocus of the micrograph along u; underfocus positive
defocus_v|Å|number|required|the same along v
astigmatism_angle|deg|number|required|direction of u
pixel_size|Å|number|required|pixel size of the micrograph
refined_pixel_size|Å|number|start|the same, refined|6 decimals
voltage|kV|number|required|acceleration voltage||optics.voltage_kv
spherical_aberration|mm|number|required|Cs||optics.spherical_aberration_mm
amplitude_contrast_ratio|-|number|required|fraction of amplitude contrast||optics.amplitude_contrast
phase_shift|deg|number|required|additional phase shift||optics.phase_shift_deg
ctf_B_factor|Å²|number|required|B of the envelope exp(-B k²/4)||optics.b_factor_angstrom2
even_zernikes|-|text|aberration|symmetric aberrations
odd_zernikes|-|text|aberration|antisymmetric aberrations
mag_matrix|-|text|aberration|anisotropic magnification
micrograph_path|-|text|required|micrograph that contains the particle
template_path|-|text|carried|template of the match
mip_path|-|text|carried|map of the best correlation
scaled_mip_path|-|text|carried|map of the best z-score
psi_path|-|text|carried|map of the best psi
theta_path|-|text|carried|map of the best theta
phi_path|-|text|carried|map of the best phi
defocus_path|-|text|carried|map of the best relative defocus
correlation_average_path|-|text|required|map of correlation_mean
correlation_variance_path|-|text|required|map of correlation_variance
"""  # noqa: E501

# Written last.
_OURS = """
movie_path|-|text|optional|movie of the micrograph, if particles are summed from frames
deformation_field_path|-|text|optional|deformation field of the movie
beam_tilt_x|mrad|number|aberration|beam tilt, x
beam_tilt_y|mrad|number|aberration|the same, y
refined_shift_x|px|number|polished|sub-pixel remainder of the refined position, x|4 decimals
refined_shift_y|px|number|polished|the same, y|4 decimals
refined_defocus_u|Å|number|polished|defocus_u with refined astigmatism; read as starting value|4 decimals
refined_defocus_v|Å|number|polished|the same along v|4 decimals
refined_astigmatism_angle|deg|number|polished|direction of u, refined; read as starting value|4 decimals
refined_tilt_x_sigma|deg|number|polished|standard error of the tilt about the image's x|4 decimals
refined_tilt_y_sigma|deg|number|polished|the same about y|4 decimals
refined_in_plane_sigma|deg|number|polished|the same of the in-plane rotation|4 decimals
refined_orientation_sigma|deg|number|polished|the same about the least certain axis|4 decimals
refined_pos_x_sigma|px|number|polished|standard error of the position, x|4 decimals
refined_pos_y_sigma|px|number|polished|the same, y|4 decimals
refined_relative_defocus_sigma|Å|number|polished|standard error of the mean defocus|4 decimals
refined_pixel_size_sigma|Å|number|polished|standard error of the pixel size|6 decimals
refined_astigmatism_sigma|Å|number|polished|standard error of (defocus_u - defocus_v) / 2|4 decimals
refined_beam_tilt_x|mrad|number|polished|beam tilt along x, if free in the polish; not read as starting value|4 decimals
refined_beam_tilt_y|mrad|number|polished|the same along y|4 decimals
refined_beam_tilt_x_sigma|mrad|number|polished|its standard error, x|4 decimals
refined_beam_tilt_y_sigma|mrad|number|polished|the same, y|4 decimals
refined_z33c|rad Å³|number|polished|Z33c, if free in the polish; not read as starting value|4 decimals
refined_z33c_sigma|rad Å³|number|polished|its standard error|4 decimals
refined_z33s|rad Å³|number|polished|Z33s, if free in the polish; not read as starting value|4 decimals
refined_z33s_sigma|rad Å³|number|polished|its standard error|4 decimals
refined_z44c|rad Å⁴|number|polished|Z44c, if free in the polish; not read as starting value|4 decimals
refined_z44c_sigma|rad Å⁴|number|polished|its standard error|4 decimals
refined_z44s|rad Å⁴|number|polished|Z44s, if free in the polish; not read as starting value|4 decimals
refined_z44s_sigma|rad Å⁴|number|polished|its standard error|4 decimals
refined_z60|rad Å⁶|number|polished|Z60, if free in the polish; not read as starting value|4 decimals
refined_z60_sigma|rad Å⁶|number|polished|its standard error|4 decimals
refined_magnification_yy|-|number|polished|a of the magnification [[1 + a, b], [b, 1 - a]] of (y, x), if free in the polish; not read as starting value|6 decimals
refined_magnification_yy_sigma|-|number|polished|its standard error|6 decimals
refined_magnification_yx|-|number|polished|b of the same|6 decimals
refined_magnification_yx_sigma|-|number|polished|its standard error|6 decimals
refined_polish|-|text|polished|how the polish ended (see below)|text
refined_scaled_mip_expected|-|number|polished|expected z-score in independent data (see below)|float32
grid_mip|-|number|polished|correlation at the best grid point, before the polish|float32
grid_scaled_mip|-|number|polished|z-score at the best grid point|float32
grid_pos_x|px|integer|polished|top-left corner at the best grid point, x|whole
grid_pos_y|px|integer|polished|the same, y|whole
grid_phi|deg|number|polished|phi at the best grid point|4 decimals
grid_theta|deg|number|polished|theta at the best grid point|4 decimals
grid_psi|deg|number|polished|psi at the best grid point|4 decimals
grid_relative_defocus|Å|number|polished|relative defocus at the best grid point|4 decimals
grid_pixel_size|Å|number|polished|pixel size at the best grid point|6 decimals
template_envelope_b|Å²|number|envelope|additional B, on top of ctf_B_factor, used in the refinement|4 decimals
refined_snr|-|number|output|2DTM SNR: correlation relative to the background (see below)|float32|refined.snr
refined_status|-|text|output|outcome of the refinement (see below)|text
refined_at_edge|-|text|output|quantities whose best value is at the edge of the search range|text
partner_found|-|integer|partner|1 if the z-score of the partner is above the threshold, else 0|whole
partner_p_value|-|number|partner|probability of this z-score if there is no partner|float32
partner_pos_x_img|px|number|partner|centre of the partner in the micrograph, x|2 decimals
partner_pos_y_img|px|number|partner|the same, y|2 decimals
refined_p_value|-|number|marked|probability that a search of noise scores as high (see below)|float32
refined_false_positives|-|number|marked|noise peaks as high to expect in the micrograph, at most (see below)|float32
refined_filled_fraction|-|number|marked|fraction of the template on defective pixels (see below)|4 decimals
particle_probability|-|number|marked|probability that the pick is a particle (by `jaxrefine calibrate config.yaml`)|4 decimals
"""  # noqa: E501

# For particles that were compared with several references, written after all others; those
# with NAME once for each reference.
_COMPARED = """
best_reference|-|text|compared|name of the most probable reference|text
reference_probability|-|number|compared|its posterior probability|6 decimals
reference_log_ratio|-|number|compared|log likelihood ratio of it to the next|4 decimals
reference_overlap|-|number|compared|correlation of the images expected of the two|6 decimals
probability_NAME|-|number|compared|posterior probability of the reference|6 decimals
refined_scaled_mip_NAME|-|number|compared|z-score with the reference, polished|float32
refined_status_NAME|-|text|compared|refined_status with the reference|text
refined_phi_NAME|deg|number|compared|phi with the reference, polished|4 decimals
refined_theta_NAME|deg|number|compared|theta|4 decimals
refined_psi_NAME|deg|number|compared|psi|4 decimals
refined_pos_x_NAME|px|number|compared|top-left corner with the reference, x, polished|4 decimals
refined_pos_y_NAME|px|number|compared|the same, y|4 decimals
refined_relative_defocus_NAME|Å|number|compared|relative defocus with the reference, polished|4 decimals
"""  # noqa: E501


def _columns(lines: str, *, ours: bool) -> tuple[Column, ...]:
    return tuple(Column(*line.split("|"), ours=ours) for line in lines.split("\n") if line)


def _fields(owner: str) -> dict[str, Column]:
    """The fields of `Optics` or `Refined` that have a column, with the column."""
    return {
        column.field.removeprefix(f"{owner}."): column
        for column in COLUMNS
        if column.field.startswith(f"{owner}.")
    }


COLUMNS = (*_columns(_LEOPARD_EM, ours=False), *_columns(_OURS, ours=True))
BY_NAME = {column.name: column for column in COLUMNS}
WRITTEN = tuple(column for column in COLUMNS if column.written)
OPTICS_FIELDS, REFINED_FIELDS = _fields("optics"), _fields("refined")
COMPARED = _columns(_COMPARED, ours=True)
ANGLES = ("phi", "theta", "psi")
DEFOCUS = ("defocus_u", "defocus_v")
ABERRATIONS = tuple(column.name for column in COLUMNS if column.use == "aberration")


def reference_columns(names: Iterable[str]) -> tuple[Column, ...]:
    """The columns of a comparison of references with these names."""
    each = [column for column in COMPARED if "NAME" in column.name]
    return (
        *(column for column in COMPARED if column not in each),
        *(
            replace(column, name=column.name.replace("NAME", name))
            for name in names
            for column in each
        ),
    )


def compared_names(header: Iterable[str]) -> list[str]:
    """The references that a table was compared with, if any."""
    header = list(header)
    if COMPARED[0].name not in header:
        return []
    beginning = "probability_"
    return [name.removeprefix(beginning) for name in header if name.startswith(beginning)]
