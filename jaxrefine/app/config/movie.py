"""The section of movies."""

from typing import ClassVar

from jaxrefine.app.config.schema import Rule, Section


class MovieConfig(Section):
    """Movies, from which particles are summed instead of extracted from micrographs.

    Attributes:
        enabled: Use the movies.
        movie_path: The movie (MRC, TIFF or EER) of the micrograph for which the table's
            column `movie_path` names none.
        deformation_field_path: Deformation field of the movie, a CSV file; the table can
            have a column of this name. The negative of the field is applied.
        particle_shifts_path: Shifts for each particle and frame, a CSV file; if given, no
            deformation field is used.
        pre_exposure: Exposure before the first frame in electrons/Å².
        fluence_per_frame: Exposure of a frame in electrons/Å²; 0: frames are not weighted.
        gain_path: Gain reference (MRC or TIFF) by which frames are multiplied; empty: none.
        eer_grouping: Number of frames of an EER file that are summed to one frame.
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
