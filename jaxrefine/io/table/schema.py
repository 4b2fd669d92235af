"""The columns of the particle table: the only list of their names, units and meanings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of the particle table.

    Attributes:
        name: Header of the column.
        unit: Its unit, "-" for none.
        kind: "integer", "number" or "text".
        use: "required": read, must be there. "optional": read if there. "start": written,
            and read as the starting value if there. "output": written. "polished": written
            where particles were polished. "carried": copied unread. "refused": must be
            empty.
        meaning: What it holds.
    """

    name: str
    unit: str
    kind: str
    use: str
    meaning: str

    @property
    def required(self) -> bool:
        """Whether a table without it is refused."""
        return self.use == "required"


# Leopard-EM's order of a refined table, then our own columns.
_COLUMNS = """
particle_index|-|integer|carried|number of the particle; need not be unique
mip|-|number|optional|correlation at the best pose of the match
scaled_mip|-|number|optional|z-score at the best pose of the match
refined_mip|-|number|output|correlation at the best pose of the refinement
refined_scaled_mip|-|number|output|z-score at the best pose of the refinement
correlation_mean|-|number|optional|mean of the correlation over all poses of the match
correlation_variance|-|number|optional|its variance or standard deviation (see below)
total_correlations|-|integer|carried|number of poses of the match
pos_x|px|integer|required|top-left corner of the template in the micrograph, x
pos_y|px|integer|required|the same, y
pos_x_img|px|integer|carried|centre of the particle in the micrograph, x
pos_y_img|px|integer|carried|the same, y
pos_x_img_angstrom|Å|number|carried|centre of the particle in the micrograph, x
pos_y_img_angstrom|Å|number|carried|the same, y
refined_pos_x|px|integer|start|refined top-left corner, x
refined_pos_y|px|integer|start|the same, y
refined_pos_x_img|px|integer|output|refined centre: corner + template side // 2, x
refined_pos_y_img|px|integer|output|the same, y
refined_pos_x_img_angstrom|Å|number|output|refined centre in px times pixel_size, x
refined_pos_y_img_angstrom|Å|number|output|the same, y
phi|deg|number|required|first Euler angle (intrinsic ZYZ)
theta|deg|number|required|second Euler angle
psi|deg|number|required|third Euler angle
refined_phi|deg|number|start|refined phi, in [0, 360)
refined_theta|deg|number|start|refined theta, in [0, 180]
refined_psi|deg|number|start|refined psi, in [0, 360)
relative_defocus|Å|number|required|defocus of the particle less that of the micrograph
refined_relative_defocus|Å|number|start|the same, refined
defocus_u|Å|number|required|defocus of the micrograph along u; underfocus positive
defocus_v|Å|number|required|the same along v
astigmatism_angle|deg|number|required|direction of u
pixel_size|Å|number|required|pixel size of the micrograph
refined_pixel_size|Å|number|start|the same, refined
voltage|kV|number|required|acceleration voltage
spherical_aberration|mm|number|required|Cs
amplitude_contrast_ratio|-|number|required|fraction of amplitude contrast
phase_shift|deg|number|required|additional phase shift
ctf_B_factor|Å²|number|required|B of the envelope exp(-B k²/4)
even_zernikes|-|text|refused|symmetric aberrations, not supported yet
odd_zernikes|-|text|refused|antisymmetric aberrations, not supported yet
mag_matrix|-|text|refused|anisotropic magnification, not supported yet
micrograph_path|-|text|required|image in which the particle lies
template_path|-|text|carried|template of the match
mip_path|-|text|carried|map of the best correlation
scaled_mip_path|-|text|carried|map of the best z-score
psi_path|-|text|carried|map of the best psi
theta_path|-|text|carried|map of the best theta
phi_path|-|text|carried|map of the best phi
defocus_path|-|text|carried|map of the best relative defocus
correlation_average_path|-|text|required|map of correlation_mean
correlation_variance_path|-|text|required|map of correlation_variance
refined_shift_x|px|number|polished|sub-pixel rest of the refined position, x
refined_shift_y|px|number|polished|the same, y
refined_defocus_u|Å|number|polished|defocus_u with refined astigmatism; read as start
refined_defocus_v|Å|number|polished|the same along v
refined_astigmatism_angle|deg|number|polished|direction of u, refined; read as start
refined_tilt_x_sigma|deg|number|polished|standard error of the tilt about the image's x
refined_tilt_y_sigma|deg|number|polished|the same about y
refined_in_plane_sigma|deg|number|polished|the same of the in-plane rotation
refined_orientation_sigma|deg|number|polished|the same about the axis known worst
refined_pos_x_sigma|px|number|polished|standard error of the position, x
refined_pos_y_sigma|px|number|polished|the same, y
refined_relative_defocus_sigma|Å|number|polished|standard error of the mean defocus
refined_pixel_size_sigma|Å|number|polished|standard error of the pixel size
refined_astigmatism_sigma|Å|number|polished|standard error of (defocus_u - defocus_v) / 2
refined_polish|-|text|polished|how the polish ended (see below)
grid_mip|-|number|polished|correlation at the grid's best, before polishing
grid_scaled_mip|-|number|polished|z-score at the grid's best
grid_pos_x|px|integer|polished|top-left corner at the grid's best, x
grid_pos_y|px|integer|polished|the same, y
grid_phi|deg|number|polished|phi at the grid's best
grid_theta|deg|number|polished|theta at the grid's best
grid_psi|deg|number|polished|psi at the grid's best
grid_relative_defocus|Å|number|polished|relative defocus at the grid's best
grid_pixel_size|Å|number|polished|pixel size at the grid's best
refined_snr|-|number|output|correlation above the background, in its deviations (see below)
refined_status|-|text|output|how the particle fared (see below)
refined_at_edge|-|text|output|the quantities whose best is the outermost that was searched
refined_filled_fraction|-|number|output|share of the template that is no image (see below)
"""

COLUMNS = tuple(Column(*line.split("|")) for line in _COLUMNS.split("\n") if line)

BY_NAME = {column.name: column for column in COLUMNS}
# Numbers of a polish, in their order.
POLISHED = tuple(c.name for c in COLUMNS if c.use == "polished" and c.kind != "text")
ANGLES = ("phi", "theta", "psi")
DEFOCUS = ("defocus_u", "defocus_v")
# Not Leopard-EM's: written last.
OURS = tuple(
    c.name
    for c in COLUMNS
    if c.use == "polished"
    or c.name
    in ("refined_snr", "refined_status", "refined_at_edge", "refined_filled_fraction")
)
