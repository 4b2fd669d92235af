"""Check that Leopard-EM reads a particle table as it is meant.

Run by hand in an environment that holds the peer (install as in freeze_peer.py):

    python tests/oracles/peer_reads_our_table.py TABLE.csv [--box 80 80] [--template 64 64]

The micrographs and maps named in the table are not opened. Loads the table with
``leopard_em``'s ``ParticleStack`` and compares what it would start a refinement from
with the CSV read by Python's own csv module. Prints what it found; exits with 1 on any
disagreement, and where the peer falls back to unrefined columns that the table refines.
"""

import argparse
import csv
import os
import sys
import warnings

os.environ["LEOPARDEM_DISABLE_TORCH_COMPILATION"] = "1"

import numpy as np
from leopard_em.pydantic_models.data_structures import ParticleStack


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    parser.add_argument("--box", type=int, nargs=2, default=(80, 80))
    parser.add_argument("--template", type=int, nargs=2, default=(64, 64))
    return parser.parse_args()


def main() -> int:
    args = arguments()
    with open(args.table, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack = ParticleStack(
            df_path=args.table,
            extracted_box_size=tuple(args.box),
            original_template_size=tuple(args.template),
        )
        euler = stack.get_euler_angles().numpy()
        defocus_u, defocus_v = (value.numpy() for value in stack.get_absolute_defocus())
        pixel_size = stack.get_pixel_size().numpy()
        position_columns = stack._get_position_reference_columns()

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name] or "nan") for row in rows])

    def expected(name: str) -> np.ndarray:
        """The refined column where the table has one, else the unrefined."""
        return column(f"refined_{name}" if f"refined_{name}" in columns else name)

    offset = expected("relative_defocus")
    checks = {
        "number of particles": (stack.num_particles, len(rows)),
        "phi": (euler[:, 0], expected("phi")),
        "theta": (euler[:, 1], expected("theta")),
        "psi": (euler[:, 2], expected("psi")),
        "defocus u": (defocus_u, column("defocus_u") + offset),
        "defocus v": (defocus_v, column("defocus_v") + offset),
        "pixel size": (pixel_size, expected("pixel_size")),
    }
    for index, axis in enumerate("yx"):
        found = position_columns[index]
        meant = f"refined_pos_{axis}" if f"refined_pos_{axis}" in columns else f"pos_{axis}"
        positions = stack[found].to_numpy()
        checks[f"column of {axis}"] = (found, meant)
        checks[f"position {axis}"] = (positions, expected(f"pos_{axis}"))
        # The peer slices with them: integers, or it fails later.
        checks[f"position {axis} is of type"] = (positions.dtype.kind, "i")

    errors = 0
    for name, (theirs, ours) in checks.items():
        if isinstance(theirs, np.ndarray):
            # float64 on both sides; the parsers may differ in the last digit
            same = theirs.shape == ours.shape and np.allclose(
                theirs, ours, rtol=1e-12, atol=1e-12, equal_nan=False
            )
            shown = f"{theirs[:4]} ... " if len(theirs) > 4 else f"{theirs}"
        else:
            same, shown = theirs == ours, theirs
        errors += not same
        print(f"{'ok   ' if same else 'WRONG'} {name}: {shown}")
        if not same:
            print(f"      the table says: {ours}")

    # It warns whenever it does not use a refined column. That is no error where the
    # table has none (a match table), and one where it has.
    for warning in caught:
        text = str(warning.message)
        message = "contain NaN" in text
        errors += message
        print(f"{'WRONG' if message else 'note '} it warns: {text}")

    print("agreement" if not errors else f"{errors} disagreements")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
