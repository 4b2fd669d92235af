"""The documentation's code is run, block after block, as a reader would."""

import re
from pathlib import Path

import numpy as np
import pytest
import worlds
from worlds import batch_of, one_particle

import jaxrefine as jr
from jaxrefine.app import simulate as sim

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_differentiable(capsys):
    blocks = re.findall(
        r"```python\n(.*?)```", (DOCS / "differentiable.md").read_text(), flags=re.DOTALL
    )
    lens, side = worlds.Lens(pixel_size=2.0), 16
    score = lens.image_ctf((20, 20), side, defocus=200.0)
    atoms = worlds.ball(side, 2.0, b=80.0)
    rng = np.random.default_rng(0)
    volume = sim.potential_volume(atoms, side, 2.0)
    found = []
    for rotation in sim.random_rotations(2, rng):
        image = worlds.signal_cut(score, atoms, lens, rotation, 200, (0.3, -0.2))
        noise = rng.standard_normal(score.cut)
        found.append(one_particle(score, 20 * image + noise, lens, rotation=rotation))
    particles, grid = batch_of(found), jr.local_grid()
    refined = jr.refine_particles(particles, jr.make_template(volume), grid, score)
    names = {
        "volume": volume,
        "particles": particles,
        "refined": refined,
        "grid": grid,
        "score": score,
    }
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "nan" not in printed and len(printed.splitlines()) >= 5
    assert np.all(names["polished"].refined.z_score > refined.z_score)
    # The prior pulls u and v, which start at 5200 and 4700 Å, and the score is no better.
    assert np.all(names["with_it"].refined.z_score <= names["polished"].refined.z_score)
    for leaf in (names["by_volume"], names["by_image"], names["slopes"].rotation_deg):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)
