"""The configuration of a constrained search: Leopard-EM's files, our keys, and mistakes."""

import dataclasses
import re

import pytest
import yaml

from jaxrefine.app.config import Config
from jaxrefine.app.config.constrained import (
    ConstrainedConfig,
    ConstrainedOrientationConfig,
)
from jaxrefine.data import InputError
from tests.reference import ROOT

SHIPPED = yaml.safe_load((ROOT / "configs" / "constrained.yaml").read_text())
# The values of its example, 1.2, with the keys that it spells.
LEOPARD_EM = """\
template_volume_path: /some/path/to/template.mrc
particle_stack_reference:
  df_path: /some/path/to/particles.csv
  extracted_box_size: [528, 528]
  original_template_size: [512, 512]
particle_stack_constrained:
  df_path: /some/path/to/other_particles.csv
  extracted_box_size: [528, 528]
  original_template_size: [512, 512]
center_vector: [53.658134, 82.582367, 47.170788]
orientation_refinement_config:
  enabled: true
  rotation_axis_euler_angles: [0.0, 0.0, 0.0]
  base_grid_method: uniform
  psi_step: 1.0
  theta_step: 1.0
  phi_min: -0.0
  phi_max: 0.0
  theta_min: -8.0
  theta_max: 2.0
  psi_min: -13.0
  psi_max: 2.0
  search_roll_axis: false
  roll_axis: [0,1]
  roll_step: 2.0
defocus_search_config:
  enabled: false
preprocessing_filters:
  whitening_filter:
    do_power_spectrum: true
    enabled: true
    max_freq: 0.5
    num_freq_bins: null
  bandpass_filter:
    enabled: false
    falloff: null
    high_freq_cutoff: null
    low_freq_cutoff: null
computational_config:
  gpu_ids: 0
  num_cpus: 1
"""


def errors(**changes):
    with pytest.raises(InputError) as caught:
        Config.from_dict(SHIPPED | changes, source="c.yaml")
    return list(caught.value.errors)


def test_leopard_em_s_file_loads_unchanged(tmp_path):
    """Its example names the defocus search differently from its program."""
    path = tmp_path / "constrained.yaml"
    for text in (LEOPARD_EM, LEOPARD_EM.replace("_search_config", "_refinement_config")):
        path.write_text(text)
        config = Config.load(path)
        constraint = config.constraint
        assert constraint is not None
        assert constraint.center_vector == (53.658134, 82.582367, 47.170788)
        assert constraint.orientation_refinement_config.psi_min == -13.0
        assert not config.defocus_refinement_config.enabled
        assert config.particle_stack.df_path == "/some/path/to/particles.csv"
        assert config.particle_stack.extracted_box_size == (528, 528)
        assert config.computational_config.gpu_ids == 0
        assert config.template_envelope == "none"
        assert config.output_file(path).name == "constrained_constrained.csv"


def test_particle_stacks_are_known():
    stack = SHIPPED["particle_stack_reference"] | {"hdf5_path": "stack.h5"}
    del stack["df_path"]
    config = Config.from_dict(SHIPPED | {"particle_stack_reference": stack})
    assert config.particle_stack.df_path == "stack.h5"


def test_the_shipped_file_has_every_key():
    """With our own keys at their defaults."""
    for kind, data in (
        (ConstrainedConfig, SHIPPED),
        (ConstrainedOrientationConfig, SHIPPED["orientation_refinement_config"]),
    ):
        assert {field.name for field in dataclasses.fields(kind)} == set(data)
    ours = (ROOT / "configs" / "constrained.yaml").read_text().split("[ours], as all")[1]
    defaults = {
        field.name: field.default for field in dataclasses.fields(ConstrainedConfig)
    }
    for name in (*re.findall(r"^(\w+):", ours, re.M), "template_frame", "false_positives"):
        assert SHIPPED[name] == defaults[name], name


def test_the_page_has_every_key():
    text = (ROOT / "docs" / "constrained.md").read_text()
    keys = [field.name for field in dataclasses.fields(ConstrainedConfig)]
    keys += [field.name for field in dataclasses.fields(ConstrainedOrientationConfig)]
    for key in keys:
        assert f"`{key}`" in text, key


def test_sizes_are_those_of_the_frame():
    small = {"extracted_box_size": [40, 40], "original_template_size": [32, 32]}
    stack = SHIPPED["particle_stack_constrained"] | small
    data = SHIPPED | {"particle_stack_constrained": stack}
    config = Config.from_dict(data | {"template_frame": "partner"})
    assert config.particle_stack.original_template_size == (32, 32)
    assert config.particle_stack.df_path == "references.csv"
    assert config.stack_key == "particle_stack_constrained"
    (error,) = errors(**data)
    assert "original_template_size: [32, 32] — must be the reference's" in error


def test_reproduce_brings_leopard_em_s_choices():
    config = Config.from_dict(
        {k: v for k, v in SHIPPED.items() if k not in ("scoring", "template_sampling")}
        | {"reproduce": "leopard_em", "fill_defects": False}
    )
    assert (config.scoring, config.template_sampling) == ("template_ctf", "trilinear")
    assert config.constraint.scoring == "template_ctf"
    assert "contradicts reproduce" in errors(reproduce="leopard_em", fill_defects=False)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"center_vector": [1.0, 2.0]}, "center_vector: [1.0, 2.0] — must be a vector"),
        ({"defocus_hand": 2}, "defocus_hand: 2 — must be 1 or -1"),
        ({"false_positives": 0.0}, "false_positives: 0.0 — must be above 0"),
        ({"centre_vector": [0, 0, 0]}, "nearest valid one is center_vector"),
        ({"polish": {"enabled": True}}, "polish: {'enabled': true} — unknown key"),
        ({"template_envelope": "auto"}, "must be none, or a B in Å²"),
        (
            {"particle_stack_constrained": None},
            "particle_stack_constrained.df_path: missing",
        ),
    ],
)
def test_mistakes(changes, said):
    assert any(said in error for error in errors(**changes)), errors(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"psi_min": 9.0}, "psi_min: 9.0 — must not be larger than psi_max, 8.0"),
        ({"theta_step": 0.0}, "theta_step: 0.0 — must be larger than 0 degrees"),
        ({"psi_max": 400.0}, "psi_max: 400.0 — must be within ±360 degrees"),
        ({"base_grid_method": "healpix"}, "healpix and basic do not exist here"),
        (
            {"base_grid_method": "roll", "roll_axis": [0, 0]},
            "roll_axis: [0.0, 0.0] — must be a direction",
        ),
        (
            {"psi_step": 0.001, "theta_step": 0.001, "theta_max": 90.0},
            "makes more than 10,000,000 orientations",
        ),
    ],
)
def test_mistakes_of_the_orientations(changes, said):
    section = SHIPPED["orientation_refinement_config"] | changes
    found = errors(orientation_refinement_config=section)
    assert any(said in error for error in found), found
