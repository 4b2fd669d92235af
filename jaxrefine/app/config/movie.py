"""Movie frames: a section of Leopard-EM's files, which must be disabled."""

from typing import ClassVar

from jaxrefine.app.config.schema import Rule, Section


class MovieConfig(Section):
    """Refinement against movie frames: accepted, but not implemented yet.

    Attributes:
        enabled: Must be false.
        movie_path: The aligned movie.
        deformation_field_path: The movie's deformation field.
        particle_shifts_path: Shifts per particle and frame.
        pre_exposure: Exposure before the first frame in electrons/Å².
        fluence_per_frame: Exposure of a frame in electrons/Å².
    """

    enabled: bool = False
    movie_path: str = ""
    deformation_field_path: str = ""
    particle_shifts_path: str = ""
    pre_exposure: float = 0.0
    fluence_per_frame: float = 1.0

    rules: ClassVar = (
        Rule(
            "enabled",
            lambda c: not c.enabled,
            "refinement against movie frames is not implemented yet; must be false",
        ),
    )
