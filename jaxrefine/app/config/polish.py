"""The section of the polish."""

from typing import Annotated, ClassVar, Literal

from jaxrefine.app.config.schema import Rule, Section
from jaxrefine.data import PARAMETERS

_WORDS = f"a list of {', '.join(PARAMETERS)}"


class PolishConfig(Section):
    """Continuous optimisation from the best grid point.

    Attributes:
        enabled: Polish, and write standard errors.
        method: `gauss_newton`, damped; or `adam`.
        max_steps: Maximum number of evaluations of score and derivatives per particle.
        parameters: Free parameters: some of orientation, shift, defocus, astigmatism,
            pixel_size, beam_tilt, trefoil, even_zernikes and magnification.
        bound_to_cell: Stay within half a step of the best grid point, and within one pixel.
            Steps are commonly smaller than standard errors, so most particles then end at a
            limit.
        prior: `match`: the starting values as a prior, with half the search range as
            standard deviation, so that poses are posterior means; for particles whose
            images contain less information. `none`: no prior.
    """

    enabled: bool = False
    method: Literal["gauss_newton", "adam"] = "gauss_newton"
    max_steps: int = 10
    parameters: Annotated[tuple[str, ...], _WORDS] = ("orientation", "defocus", "shift")
    bound_to_cell: bool = False
    prior: Literal["none", "match"] = "none"

    rules: ClassVar = (
        Rule("max_steps", lambda c: c.max_steps >= 1, "must be 1 or more"),
        Rule(
            "parameters",
            lambda c: (
                c.parameters
                and set(c.parameters) <= set(PARAMETERS)
                and len(set(c.parameters)) == len(c.parameters)
            ),
            f"must be {_WORDS}, each once",
        ),
    )
