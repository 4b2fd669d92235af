"""The summary of a calibration on the command line."""

from jaxrefine.app.console.calibration_summary import format_calibration


def test_values_are_printed_to_two_digits_of_their_errors():
    entry = {"parameter": "pixel_size", "group": "all", "unit": "Å"}
    values = {
        "a": {"start": 2.0, "value": 2.014523, "standard_error": 0.00571},
        "b": {"start": 4000.0, "value": 4031.24, "standard_error": 262.0},
        "c": {"start": 1.0, "determined": False},
    }
    found = {
        **{"particles": 9, "probable_particles": 8.0, "held_out": None},
        **{"mean_z_poses_refined": 9.0, "mean_z_calibrated": 9.5},
        "defocus_spread": {"value": 34.2, "standard_error": 4.4, "assumed": 100.0},
        "parameters": [entry | {"values": values, "p_value": 0.2}],
    }
    assert list(format_calibration(found))[1:] == [
        "a: 2.0145 ± 0.0057 Å (was 2)",
        "b: 4031 ± 262 Å (was 4000)",
        "c: not determined by the data; held at 1",
        "  pixel_size: the change is not significant (p = 0.2)",
        "particles lie 34 ± 4 Å around their common defocus; 100 Å was assumed",
    ]
    found["defocus_spread"]["standard_error"] = None  # without particles
    found["parameters"][0]["likelihood_ratio_p_value"] = 0.001  # which counts instead
    assert len(list(format_calibration(found))) == 4
