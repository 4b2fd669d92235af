"""The particles of a run: the section of the particle stack."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from jaxrefine.app.config.schema import Rule, Section

_LARGEST_BOX_PX = 8192


class ParticleStackConfig(Section):
    """The particles, and the sizes of box and template.

    Attributes:
        df_path: The particle table, a CSV file or a particle stack of Leopard-EM 1.3
            (HDF5), in which the key is `hdf5_path`.
        extracted_box_size: Height and width in px of the box around each particle; even, at
            least the template's (usually 4 to 24 px larger). Positions are searched over
            the difference, and fixed if there is none.
        original_template_size: Height and width in px of the template, equal and even;
            the side of the template volume.
    """

    df_path: Annotated[str, "the path of the particle CSV"]
    extracted_box_size: Annotated[
        tuple[int, int], "the box as [height, width] in px, two whole numbers"
    ]
    original_template_size: Annotated[
        tuple[int, int], "the template as [height, width] in px, two whole numbers"
    ]

    # Boxes are extracted from the micrographs again, so those of a stack are ignored.
    ignored: ClassVar = (
        "leopard_em_version",
        "global_whitening_applied",
        "local_whitening_applied",
        "global_normalization_applied",
        "local_normalization_applied",
        "allow_file_overwrite",
        "image_stack_stored",
        "local_stats_stored",
    )
    rules: ClassVar = (
        Rule("df_path", lambda c: c.df_path, "must be the path of the particle CSV"),
        Rule(
            "original_template_size",
            lambda c: min(c.original_template_size) > 0,
            "both sides must be larger than 0 px",
        ),
        Rule(
            "original_template_size",
            lambda c: all(side % 2 == 0 for side in c.original_template_size),
            "both sides must be even",
        ),
        Rule(
            "original_template_size",
            lambda c: len(set(c.original_template_size)) == 1,
            "must be square: [h, h], h the side of the template volume",
        ),
        Rule(
            "extracted_box_size",
            lambda c: max(c.extracted_box_size) <= _LARGEST_BOX_PX,
            f"both sides must be at most {_LARGEST_BOX_PX} px",
        ),
        Rule(
            "extracted_box_size",
            lambda c: all(side % 2 == 0 for side in c.extracted_box_size),
            "both sides must be even",
        ),
        Rule(
            "extracted_box_size",
            lambda c: all(
                box >= template
                for box, template in zip(
                    c.extracted_box_size, c.original_template_size, strict=True
                )
            ),
            "both sides must be at least the template's, {original_template_size}; 4 to 24 "
            "px more is usual",
        ),
    )


def with_df_path(data: Any, section: str = "particle_stack") -> Any:
    """The data, with Leopard-EM 1.3's `hdf5_path` renamed to `df_path`."""
    stack = data.get(section) if isinstance(data, Mapping) else None
    if not isinstance(stack, Mapping) or "df_path" in stack or "hdf5_path" not in stack:
        return data
    renamed = {"df_path" if k == "hdf5_path" else k: v for k, v in stack.items()}
    return {**data, section: renamed}
