"""Invalid configurations, and their messages."""

from typing import Any

import pytest

from jaxrefine.app.config.config import Config, ParticleStackConfig
from jaxrefine.app.config.search import DefocusRefinementConfig
from jaxrefine.data import InputError
from tests.app.config.config_data import with_values


def errors_of(changes: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        Config.from_dict(with_values(changes), source="run.yaml")
    return error.value.errors


# --- What is refused --------------------------------------------------------------

DEFOCUS, ORIENTATION = "defocus_refinement_config", "orientation_refinement_config"
PIXEL_SIZE, COMPUTATION = "pixel_size_refinement_config", "computational_config"
BOX = "particle_stack.extracted_box_size"
DROPOUT = "preprocessing_filters.random_fourier_dropout"
TEMPLATE = "particle_stack.original_template_size"
WHITENING = "preprocessing_filters.whitening_filter"
BANDPASS = "preprocessing_filters.bandpass_filter"
CURVE = "preprocessing_filters.arbitrary_curve_filter"
PHASES = "preprocessing_filters.phase_randomization_filter"
MOVIE = "movie_config"
LASER = "laser_phase_plate"

# key, value, value as the message shows it, part of the remedy
FAULTS = [
    (f"{DEFOCUS}.defocus_stepp", 2.0, "2.0", "nearest valid one is defocus_step"),
    ("particle_stak", None, "null", "unknown key; the nearest valid one is particle_stack"),
    ("source", "x", "'x'", "unknown key"),
    # types
    ("template_volume_path", 7, "7", "must be the path of the template volume"),
    ("template_volume_path", None, "null", "must be the path of the template volume"),
    ("template_volume_path", "", "''", "must be the path of the template volume"),
    ("particle_stack.df_path", ["a"], "['a']", "must be the path of the particle CSV"),
    ("particle_stack.df_path", "", "''", "must be the path of the particle CSV"),
    (BOX, 528, "528", "must be the box as [height, width] in px"),
    (BOX, [528], "[528]", "must be the box as [height, width] in px"),
    (BOX, "ab", "'ab'", "must be the box as [height, width] in px"),
    (f"{DEFOCUS}.enabled", "no", "'no'", "must be true or false"),
    (f"{DEFOCUS}.enabled", 1, "1", "must be true or false"),
    (f"{DEFOCUS}.defocus_min", True, "true", "must be a finite number"),
    (f"{DEFOCUS}.defocus_min", "far", "'far'", "must be a finite number"),
    (f"{DEFOCUS}.defocus_min", "nan", "'nan'", "must be a finite number"),
    (f"{DEFOCUS}.defocus_min", None, "null", "must be a finite number"),
    (f"{DEFOCUS}.defocus_min", float("nan"), "nan", "must be a finite number"),
    (f"{DEFOCUS}.defocus_max", float("inf"), "inf", "must be a finite number"),
    (f"{DEFOCUS}.defocus_max", 10**400, "a very large number", "a finite number"),
    (f"{DEFOCUS}.defocus_max", "1e999", "'1e999'", "must be a finite number"),
    (DEFOCUS, [1], "[1]", "must be a mapping with keys enabled, defocus_min"),
    (f"{WHITENING}.num_freq_bins", 100.0, "100.0", "must be a whole number or null"),
    (f"{WHITENING}.num_freq_bins", True, "true", "must be a whole number or null"),
    (f"{COMPUTATION}.num_cpus", "4", "'4'", "must be a whole number"),
    (f"{COMPUTATION}.gpu_ids", 0.0, "0.0", "must be auto, all, cpu, cuda:N"),
    (f"{COMPUTATION}.gpu_ids", True, "true", "must be auto, all, cpu, cuda:N"),
    ("apply_global_filtering", "yes", "'yes'", "must be true or false"),
    ("scoring", "ctf", "'ctf'", "must be image_ctf or template_ctf"),
    ("scoring", ["image_ctf"], "['image_ctf']", "must be image_ctf or template_ctf"),
    ("ewald", "round", "'round'", "must be flat or curved"),
    ("ewald_sign", 0, "0", "must be 1 or -1"),
    ("reproduce", True, "true", "must be leopard_em or null"),
    ("output_path", 5, "5", "must be text"),
    ("output_path", "", "''", "must be a path, or null"),
    (f"{DROPOUT}.dropout_fraction", 1, "1.0", "0 or more and less than 1"),
    (f"{DROPOUT}.seed", -1, "-1", "must be 0 or more"),
    # sizes
    (BOX, [529, 528], "[529, 528]", "both sides must be even"),
    (BOX, [528, 510], "[528, 510]", "at least the template's, [512, 512]; 4 to 24 px"),
    (TEMPLATE, [511, 511], "[511, 511]", "both sides must be even"),
    (TEMPLATE, [512, 510], "[512, 510]", "must be square"),
    (TEMPLATE, [0, 0], "[0, 0]", "both sides must be larger than 0 px"),
    ("template_pixel_size", 0, "0.0", "must be larger than 0 Å per voxel"),
    # searches
    (f"{DEFOCUS}.defocus_step", 0, "0.0", "must be larger than 0 Å"),
    (f"{DEFOCUS}.defocus_min", 500, "500.0", "not be larger than defocus_max, 100.0"),
    (f"{PIXEL_SIZE}.pixel_size_step", -1, "-1.0", "must be larger than 0 Å"),
    (f"{PIXEL_SIZE}.pixel_size_min", 0.1, "0.1", "larger than pixel_size_max, 0.005"),
    (f"{ORIENTATION}.psi_step_fine", 0, "0.0", "must be larger than 0 degrees"),
    (f"{ORIENTATION}.theta_step_fine", -0.1, "-0.1", "must be larger than 0 degrees"),
    (f"{ORIENTATION}.phi_step_coarse", -2, "-2.0", "0 for an axis that is not searched"),
    (
        f"{ORIENTATION}.base_grid_method",
        "healpix",
        "'healpix'",
        "must be uniform (which covers the full three-axis neighbourhood), cartesian",
    ),
    (f"{ORIENTATION}.base_grid_method", "basic", "'basic'", "must be uniform"),
    (f"{ORIENTATION}.psi_step_fine", 0.0014, "0.0014", "more than 1000 steps"),
    # filters
    (f"{WHITENING}.num_freq_bins", 1, "1", "must be 2 to 100000, or null"),
    (f"{WHITENING}.max_freq", 0.0, "0.0", "must be larger than 0 cycles/px"),
    (f"{BANDPASS}.low_freq_cutoff", 0.2, "0.2", "lower than high_freq_cutoff, 0.2"),
    (f"{BANDPASS}.low_freq_cutoff", -0.1, "-0.1", "must be 0 cycles/px or more"),
    (f"{BANDPASS}.falloff", -0.1, "-0.1", "must be 0 cycles/px or more"),
    (f"{CURVE}.frequencies", None, "null", "needs a list of two frequencies or more"),
    (f"{CURVE}.frequencies", [0.3, 0.3], "[0.3, 0.3]", "must be increasing"),
    (f"{CURVE}.amplitudes", None, "null", "needs a list of amplitudes"),
    (f"{CURVE}.amplitudes", [1], "[1.0]", "as many values as frequencies, [0.0, 0.5]"),
    (f"{PHASES}.cuton", None, "null", "enabled phase randomization needs a frequency"),
    (f"{PHASES}.cuton", -0.1, "-0.1", "enabled phase randomization needs a frequency"),
    # computation
    (f"{COMPUTATION}.num_cpus", 0, "0", "must be 1 or more"),
    (f"{COMPUTATION}.batch_size", 0, "0", "must be auto or a whole number, 1 or more"),
    (f"{COMPUTATION}.batch_size", "many", "'many'", "must be auto or a whole number"),
    (f"{COMPUTATION}.batch_size", 2.5, "2.5", "must be auto or a whole number"),
    (f"{COMPUTATION}.batch_size", True, "true", "must be auto or a whole number"),
    (f"{COMPUTATION}.precision", "float64", "'float64'", "must be auto or float32 or"),
    (f"{COMPUTATION}.gpu_ids", -1, "-1", "GPU numbers must be 0 or more"),
    (f"{COMPUTATION}.gpu_ids", [0, -1], "[0, -1]", "GPU numbers must be 0 or more"),
    (f"{COMPUTATION}.gpu_ids", [], "[]", "an empty list names no device"),
    (f"{COMPUTATION}.gpu_ids", "gpu0", "'gpu0'", "must be auto, all, cpu, cuda:N"),
    (f"{COMPUTATION}.gpu_ids", "cuda:x", "'cuda:x'", "must be auto, all, cpu, cuda:N"),
    (f"{COMPUTATION}.gpu_ids", ["all"], "['all']", "must be auto, all, cpu, cuda:N"),
    (f"{COMPUTATION}.gpu_ids", ["cpu", 0], "['cpu', 0]", "must be auto, all, cpu"),
    (f"{MOVIE}.pre_exposure", -1.0, "-1.0", "must be 0 … 10000 electrons/Å²"),
    (f"{MOVIE}.fluence_per_frame", -0.1, "-0.1", "must be 0 … 10000 electrons/Å²"),
    (f"{LASER}.NA", 5, "5.0", "must be 0.0001 … 1"),
    (f"{LASER}.laser_wavelength_angstrom", 1.064, "1.064", "must be 1000 … 1000000 Å"),
    (f"{LASER}.focal_length_angstrom", 20, "20.0", "must be 1e6 … 1e10 Å"),
    (f"{MOVIE}.eer_grouping", 0, "0", "must be 1 or more"),
]

# Sections that are off by default, enabled and valid.
ENABLED: dict[str, dict[str, Any]] = {
    PIXEL_SIZE: {},
    BANDPASS: {"high_freq_cutoff": 0.2},
    CURVE: {"frequencies": [0.0, 0.5], "amplitudes": [1.0, 0.5]},
    PHASES: {"cuton": 0.25},
    DROPOUT: {},
    MOVIE: {},
    LASER: {},
}


@pytest.mark.parametrize(("key", "value", "found", "remedy"), FAULTS)
def test_error_names_key_value_and_remedy(key, value, found, remedy):
    section = key.rpartition(".")[0]
    sound = {
        f"{section}.{name}": sound_value
        for name, sound_value in {"enabled": True, **ENABLED.get(section, {})}.items()
        if section in ENABLED
    }
    (message,) = errors_of({**sound, key: value})
    start = f"run.yaml: {key}: {found} — "
    assert message.startswith(start)
    assert remedy in message.removeprefix(start)


@pytest.mark.parametrize("section", ENABLED)
def test_section_switched_off_is_checked_for_types_only(section):
    for key, value, _, remedy in FAULTS:
        if key.startswith(section) and "finite number" not in remedy:
            Config.from_dict(with_values({key: value, f"{section}.enabled": False}))


def test_steps_that_are_fine_one_by_one_may_be_too_fine_together():
    fine = {f"{ORIENTATION}.{axis}_step_fine": 0.005 for axis in ("psi", "theta")}
    (message,) = errors_of(fine)
    assert (
        "psi_step_fine: 0.005 — with the other steps makes more than 10,000,000" in message
    )
    assert errors_of({**fine, f"{ORIENTATION}.psi_step_fine": 0}) != (message,)


def test_offsets_have_the_limits_of_the_table():
    far = {f"{DEFOCUS}.defocus_min": -2e6, f"{DEFOCUS}.defocus_step": 1e6}
    (message,) = errors_of(far)
    assert "defocus_min: -2000000.0 — must be within ±1e+06 Å" in message


def test_invalid_list_items_are_named():
    errors = errors_of(
        {
            BOX: [528.0, "528"],
            f"{CURVE}.frequencies": [0.1, "x"],
            f"{COMPUTATION}.gpu_ids": [0, None],
        }
    )
    assert [message.split(" — ")[0] for message in errors] == [
        "run.yaml: particle_stack.extracted_box_size[0]: 528.0",
        "run.yaml: particle_stack.extracted_box_size[1]: '528'",
        f"run.yaml: {CURVE}.frequencies[1]: 'x'",
        "run.yaml: computational_config.gpu_ids[1]: null",
    ]


def test_all_errors_come_together():
    errors = errors_of(
        {
            "defocus_refinment_config": {},
            "template_volume_path": 3,
            BOX: [513, 1024],
            f"{DEFOCUS}.defocus_step": "big",
            f"{DEFOCUS}.defocus_min": 300,
            f"{CURVE}.enabled": True,
            "movie_config.enabled": "often",
        }
    )
    assert [message.split(": ")[1] for message in errors] == [
        "defocus_refinment_config",
        "template_volume_path",
        "particle_stack.extracted_box_size",
        "defocus_refinement_config.defocus_step",
        "defocus_refinement_config.defocus_min",
        f"{CURVE}.frequencies",
        f"{CURVE}.amplitudes",
        "movie_config.enabled",
    ]


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("scoring", "image_ctf", "template_ctf"),
        ("template_sampling", "padded", "trilinear"),
        ("orientation_refinement_config.base_grid_method", "cartesian", "leopard_em"),
        ("template_pixel_size", 1.5, "never rescales"),
    ],
)
def test_reproduce_refuses_what_contradicts_it(key, value, needed):
    (message,) = errors_of({"reproduce": "leopard_em", key: value})
    assert message.startswith(f"run.yaml: {key}: {value!r} — ")
    assert "reproduce: leopard_em" in message
    assert needed in message


def test_reproduce_fills_nothing():
    (message,) = errors_of({"reproduce": "leopard_em", "fill_defects": True})
    assert message.startswith("run.yaml: fill_defects: true — contradicts")
    assert "needs false" in message


def test_reproduce_contradiction_shows_beside_other_errors():
    errors = errors_of(
        {
            "reproduce": "leopard_em",
            "orientation_refinement_config.base_grid_method": "cartesian",
            "orientation_refinement_config.psi_step_fine": "wide",
        }
    )
    assert len(errors) == 2


def test_constructors_check_rules():
    with pytest.raises(InputError, match=r"defocus_step: 0\.0 — must be larger than 0 Å"):
        DefocusRefinementConfig(defocus_step=0.0)
    stack = ParticleStackConfig("p.csv", (80, 80), (64, 64))
    with pytest.raises(InputError, match="scoring: 'image_ctf' — contradicts reproduce"):
        Config("t.mrc", stack, reproduce="leopard_em")


def test_reproduce_hides_no_invalid_section():
    (message,) = errors_of({"reproduce": "leopard_em", ORIENTATION: False})
    assert message.startswith(f"run.yaml: {ORIENTATION}: false — must be a mapping")


def test_messages_stay_short_and_on_one_line():
    odd_keys = {
        "a\nb": list(range(10_000)),
        "k" * 500: {1: {2: {3: 4}}},
        16**5000: "",
        "": 1,
    }
    data = with_values({"scoring": "x\n" * 10_000}) | odd_keys
    with pytest.raises(InputError) as error:
        Config.from_dict(data)
    assert len(error.value.errors) == 5
    assert all(len(message) < 300 and "\n" not in message for message in error.value.errors)
