"""The section of the laser phase plate."""

from typing import ClassVar

from jaxrefine.app.config.schema import Rule, Section


class LaserPhasePlateConfig(Section):
    """A laser phase plate with its focus on the optical axis; names are torch-ctf's.

    Attributes:
        enabled: Include its phases in the CTF.
        NA: Numerical aperture of the light's focus.
        laser_wavelength_angstrom: Wavelength of the light.
        focal_length_angstrom: Focal length of the objective lens.
        laser_xy_angle_deg: Direction of the light, from y towards x.
        laser_xz_angle_deg: Its inclination to the plane.
        laser_polarization_angle_deg: Polarization; 90 for the strongest standing wave.
        peak_phase_deg: Phase shift by each laser of the electrons that are not scattered.
        dual_laser: A second laser at a right angle to the first.
    """

    enabled: bool = False
    NA: float = 0.05
    laser_wavelength_angstrom: float = 10_640.0
    focal_length_angstrom: float = 2e8
    laser_xy_angle_deg: float = 0.0
    laser_xz_angle_deg: float = 0.0
    laser_polarization_angle_deg: float = 90.0
    peak_phase_deg: float = 90.0
    dual_laser: bool = False

    rules: ClassVar = (
        Rule("NA", lambda c: 1e-4 <= c.NA <= 1, "must be 0.0001 … 1"),
        Rule(
            "laser_wavelength_angstrom",
            lambda c: 1e3 <= c.laser_wavelength_angstrom <= 1e6,
            "must be 1000 … 1000000 Å (10640 for a neodymium laser)",
        ),
        Rule(
            "focal_length_angstrom",
            lambda c: 1e6 <= c.focal_length_angstrom <= 1e10,
            "must be 1e6 … 1e10 Å (1 mm is 1e7 Å)",
        ),
    )
