"""Valid configurations, and the values that they contain."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from jaxrefine.app.config import Config, resolve_path
from tests.app.config.config_data import REQUIRED, leaves, value_at, with_values
from tests.reference import ROOT

LEOPARD_EM = """\
template_volume_path: template.mrc
particle_stack:
  df_path: match_results.csv
  extracted_box_size:
  - 80
  - 80
  original_template_size:
  - 64
  - 64
defocus_refinement_config:
  enabled: true
  defocus_max: 100.0
  defocus_min: -100.0
  defocus_step: 20.0
orientation_refinement_config:
  enabled: true
  psi_step_coarse: 1.5
  psi_step_fine: 0.15
  theta_step_coarse: 2.5
  theta_step_fine: 0.25
pixel_size_refinement_config:
  enabled: false
  pixel_size_min: -0.005
  pixel_size_max: 0.005
  pixel_size_step: 0.001
preprocessing_filters:
  whitening_filter:
    enabled: true
    do_power_spectrum: true
    max_freq: 0.5
    num_freq_bins: null
  bandpass_filter:
    enabled: false
    falloff: null
    high_freq_cutoff: null
    low_freq_cutoff: null
computational_config:
  gpu_ids: cpu
  num_cpus: 1
apply_global_filtering: true
movie_config:
  enabled: false
  movie_path: ''
  deformation_field_path: ''
  pre_exposure: 0.0
  fluence_per_frame: 1.0
"""


# --- What is accepted -------------------------------------------------------------


def test_leopard_em_file_loads_unchanged(tmp_path):
    path = tmp_path / "refine.yaml"
    path.write_text(LEOPARD_EM)
    config = Config.load(path)
    assert config.particle_stack.extracted_box_size == (80, 80)
    assert config.orientation_refinement_config.psi_step_fine == 0.15
    assert config.orientation_refinement_config.phi_step_fine == 0.25
    assert config.preprocessing_filters.whitening_filter.num_freq_bins is None
    assert config.computational_config.devices == "cpu"
    assert config.source == str(path)
    assert config.folder == tmp_path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=str)
def test_shipped_configs_load(path):
    Config.load(path)


def test_full_example_has_every_key_at_its_default():
    path = ROOT / "configs" / "full.yaml"
    data = yaml.safe_load(path.read_text())
    for key in leaves(Config):
        value_at(data, key)
    assert Config.load(path) == Config.from_dict(REQUIRED, source=str(path))


def test_document_describes_every_key_and_its_default():
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| [^|]* \| ([^|]*) \|", text, re.M))
    defaults = leaves(Config)
    assert list(rows) == list(defaults)
    for key, default in defaults.items():
        if default is dataclasses.MISSING:
            assert rows[key] == "required"
        else:
            plain = list(default) if isinstance(default, tuple) else default
            assert yaml.safe_load(rows[key].strip("`")) == plain, key


def test_leopard_em_13_files_load(tmp_path):
    """As written by Leopard-EM 1.3, in YAML and JSON, with a table or a particle stack."""
    data = with_values(
        {
            "particle_stack.leopard_em_version": "1.3.0",
            "particle_stack.global_whitening_applied": False,
            "particle_stack.local_normalization_applied": True,
            "preprocessing_filters.random_fourier_dropout": {
                "enabled": False,
                "dropout_fraction": 0.1,
                "seed": 0,
            },
            "computational_config.backend": "zipfft",
        }
    )
    path = tmp_path / "refine.json"
    path.write_text(json.dumps(data))
    assert Config.load(path).particle_stack.df_path == "particles.csv"
    stack = data["particle_stack"]
    del stack["df_path"]
    stack |= {"hdf5_path": "stack.h5", "allow_file_overwrite": True}
    stack |= {"image_stack_stored": True, "local_stats_stored": False}
    path.write_text(json.dumps(data))
    assert Config.load(path).particle_stack.df_path == "stack.h5"
    assert Config.from_dict(data).particle_stack.extracted_box_size == (528, 528)


def test_a_box_may_equal_the_template():
    config = Config.from_dict(
        with_values({"particle_stack.extracted_box_size": [512, 512]})
    )
    assert config.particle_stack.extracted_box_size == (512, 512)


def test_null_section_has_its_defaults():
    nulls = dict.fromkeys(
        [
            "defocus_refinement_config",
            "orientation_refinement_config",
            "pixel_size_refinement_config",
            "preprocessing_filters",
            "computational_config",
            "movie_config",
        ]
    )
    assert Config.from_dict(with_values(nulls)) == Config.from_dict(REQUIRED)
    empty = Config.from_dict(with_values({"preprocessing_filters.bandpass_filter": None}))
    assert empty == Config.from_dict(REQUIRED)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 0.001), ("2E+1", 20.0), ("-.5e1", -5.0), ("3", 3.0), ("1_000.5", 1000.5)],
)
def test_numbers_as_yaml_writes_them(tmp_path, text, number):
    path = tmp_path / "c.yaml"
    path.write_text(
        yaml.safe_dump(REQUIRED) + f"defocus_refinement_config:\n  defocus_max: {text}\n"
    )
    value = Config.load(path).defocus_refinement_config.defocus_max
    assert value == number
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("gpu_ids", "devices"),
    [
        ("auto", "auto"),
        ("all", "all"),
        ("cpu", "cpu"),
        (["cpu"], "cpu"),
        (0, (0,)),
        ("cuda", (0,)),
        ("cuda:3", (3,)),
        ([2, 0], (2, 0)),
        (["cuda:1", 0, 1], (1, 0)),
    ],
)
def test_devices(gpu_ids, devices):
    config = Config.from_dict(with_values({"computational_config.gpu_ids": gpu_ids}))
    assert config.computational_config.devices == devices


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation_refinement_config.psi_step_coarse": 0},
        {"orientation_refinement_config.psi_step_fine": 5.0},
        {"pixel_size_refinement_config.pixel_size_step": 0.0},  # not enabled
        {
            "defocus_refinement_config.enabled": False,
            "defocus_refinement_config.defocus_min": 500.0,
        },
        {"preprocessing_filters.whitening_filter.max_freq": None},
        {
            "preprocessing_filters.bandpass_filter.enabled": True,
            "preprocessing_filters.bandpass_filter.low_freq_cutoff": 0.1,
        },
        {
            "preprocessing_filters.arbitrary_curve_filter.enabled": True,
            "preprocessing_filters.arbitrary_curve_filter.frequencies": [0, "1e-1"],
            "preprocessing_filters.arbitrary_curve_filter.amplitudes": (1.0, 0.5),
        },
        {
            "preprocessing_filters.phase_randomization_filter.enabled": True,
            "preprocessing_filters.phase_randomization_filter.cuton": 0.25,
        },
        {"computational_config.backend": "streamed"},
        {"template_pixel_size": 1.06, "output_path": "out.csv"},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_accepted(changes):
    config = Config.from_dict(with_values(changes))
    for path, value in changes.items():
        found = value_at(config, path)
        if not isinstance(value, list | tuple):
            assert found == value


# --- reproduce --------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"orientation_refinement_config": None},
        {"orientation_refinement_config.base_grid_method": "uniform"},
        {"orientation_refinement_config.base_grid_method": "leopard_em"},
        {"scoring": "template_ctf", "template_sampling": "trilinear"},
        {"statistics": "standard_deviation"},
    ],
    ids=str,
)
def test_reproduce_implies_the_peers_choices(given):
    data = with_values({"reproduce": "leopard_em", **given})
    before = copy.deepcopy(data)
    config = Config.from_dict(data)
    assert config.scoring == "template_ctf"
    assert config.template_sampling == "trilinear"
    assert config.statistics == given.get("statistics", "auto")
    assert config.orientation_refinement_config.base_grid_method == "leopard_em"
    assert data == before


# --- Paths ------------------------------------------------------------------------


def test_paths_are_found_here_first_then_beside(tmp_path, monkeypatch):
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    monkeypatch.chdir(here)
    (here / "both.csv").touch()
    (beside / "both.csv").touch()
    (beside / "only.csv").touch()
    assert resolve_path("both.csv", beside=beside).absolute() == here / "both.csv"
    assert resolve_path("only.csv", beside=beside) == beside / "only.csv"
    assert resolve_path("none.csv", beside=beside) == beside / "none.csv"
    assert resolve_path(str(here / "x.csv"), beside=beside) == here / "x.csv"


def test_output_lies_beside_the_particles_unless_named():
    config = Config.from_dict(REQUIRED)
    assert config.output_file(Path("data/p.csv")) == Path("data/p_refined.csv")
    config = Config.from_dict(with_values({"output_path": "out/r.csv"}))
    assert config.output_file(Path("data/p.csv")) == Path("out/r.csv")


def test_folder_of_plain_data_is_the_current_one():
    assert Config.from_dict(REQUIRED).folder == Path.cwd()
