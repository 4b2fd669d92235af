"""Refinement against movie frames: the section of the movies."""

from typing import ClassVar

from jaxrefine.app.config.schema import Rule, Section


class MovieConfig(Section):
    """Movies, from whose frames particles are summed instead of cut from micrographs.

    Attributes:
        enabled: Use the movies.
        movie_path: The movie (MRC, TIFF or EER) of all micrographs to which the table's
            column `movie_path` gives none.
        deformation_field_path: The movie's deformation field, a CSV file; the table's
            column of this name has one for each micrograph. Its negative is applied.
        particle_shifts_path: Shifts per particle and frame, a CSV file; if it is given, no
            deformation field is used.
        pre_exposure: Exposure before the first frame in electrons/Å².
        fluence_per_frame: Exposure of a frame in electrons/Å²; 0: frames are not weighted.
        gain_path: Gain reference that frames are multiplied by (MRC or TIFF); empty: none.
        eer_grouping: How many frames of an EER file are summed to one frame.
    """

    enabled: bool = False
    movie_path: str = ""
    deformation_field_path: str = ""
    particle_shifts_path: str = ""
    pre_exposure: float = 0.0
    fluence_per_frame: float = 1.0
    gain_path: str = ""
    eer_grouping: int = 1

    rules: ClassVar = (
        Rule(
            "pre_exposure",
            lambda c: 0 <= c.pre_exposure <= 1e4,
            "must be 0 … 10000 electrons/Å²",
        ),
        Rule(
            "fluence_per_frame",
            lambda c: 0 <= c.fluence_per_frame <= 1e4,
            "must be 0 … 10000 electrons/Å²; 0 leaves frames unweighted",
        ),
        Rule("eer_grouping", lambda c: c.eer_grouping >= 1, "must be 1 or more"),
    )
