"""The configuration's section on polishing."""

from typing import Annotated, ClassVar, Literal

from jaxrefine.app.config.schema import Rule, Section
from jaxrefine.data import PARAMETERS

_WORDS = f"a list of {', '.join(PARAMETERS)}"


class PolishConfig(Section):
    """From the grid's best to the continuous optimum.

    Attributes:
        enabled: Polish, and write standard errors.
        method: `gauss_newton`, damped; or `adam`.
        max_steps: Evaluations of score and derivatives per particle, at most.
        parameters: What is free: some of orientation, shift, defocus, astigmatism and
            pixel_size.
        bound_to_cell: Stay within half a step of the grid's best, and one pixel. Steps are
            commonly finer than standard errors: then most particles end at a limit.
        prior: `match`: the start as a prior, known as well as the search's reach says, so
            that poses are posterior means; for particles whose images say less than that.
            `none`.
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
