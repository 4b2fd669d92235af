"""The template from an atomic model, compared with a float64 sum over atoms."""

from pathlib import Path

import gemmi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.physics.atoms import scattering_factors

PEER = Path(__file__).resolve().parents[1] / "data" / "peer"
SIDE, PIXEL_SIZE, ATOMS = 16, 1.7, 40
ELEMENTS = ("C", "N", "O", "S", "H", "Mg")
# A term's phase in float32 is right to 2e-6 cycles; sums of 40 atoms leave this much.
CLOSE = 2e-5


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(3)
    return {
        "positions_angstrom": rng.uniform([22, -28, 2], [38, -12, 18], (ATOMS, 3)).astype(
            "f4"
        ),
        "elements": rng.choice(ELEMENTS, ATOMS).tolist(),
        "b_factor_angstrom2": rng.uniform(5, 60, ATOMS).astype("f4"),
        "occupancy": rng.uniform(0.3, 1, ATOMS).astype("f4"),
    }


def direct_sum(model, factor_at_k):
    """Σ occupancy · f(k) · exp(-B k²/4 - 2πi k·x), atom by atom, in volts."""
    full, half = np.fft.fftfreq(SIDE, PIXEL_SIZE), np.fft.rfftfreq(SIDE, PIXEL_SIZE)
    kz, ky, kx = np.meshgrid(full, full, half, indexing="ij")
    k2 = kx**2 + ky**2 + kz**2
    xyz = model["positions_angstrom"].astype(float)
    xyz = xyz - xyz.mean(axis=0) + SIDE // 2 * PIXEL_SIZE
    total = np.zeros(k2.shape, complex)
    for (x, y, z), element, b, share in zip(
        xyz,
        model["elements"],
        model["b_factor_angstrom2"].astype(float),
        model["occupancy"].astype(float),
        strict=True,
    ):
        wave = np.exp(-2j * np.pi * (kx * x + ky * y + kz * z))
        total += share * factor_at_k(element, k2) * np.exp(-b * k2 / 4) * wave
    volume = np.fft.irfftn(total, s=(SIDE,) * 3, axes=(0, 1, 2))
    # A free electron's h²/2m times 2/2π: 150.4 eV Å² / π.
    return volume * 150.41262 / np.pi / PIXEL_SIZE**3


def peng(element, k2):
    """gemmi's own copy of the table, with s = k/2."""
    a, b = np.split(np.array(gemmi.Element(element).c4322.get_coefs(), np.float64), 2)
    return sum(a_i * np.exp(-b_i * k2 / 4) for a_i, b_i in zip(a, b, strict=True))


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def test_it_is_the_sum_over_atoms(model):
    found = jr.template_from_atoms(pixel_size_angstrom=PIXEL_SIZE, side=SIDE, **model)
    assert relative(found, direct_sum(model, peng)) < CLOSE


def test_an_independent_simulator_makes_the_same_volume():
    """ttsim3d 0.4.2, which averages over voxels of 0.5 Å, without cutting atoms off.

    It multiplies B factors by 1/4, and gives the phase shift of each voxel, times 1.043.
    """
    with np.load(PEER / "template.npz") as file:
        frozen = {name: file[name] for name in file.files}
    pixel_size, theirs = float(frozen["pixel_size_angstrom"]), frozen["volume"]
    ours = jr.template_from_atoms(
        frozen["positions_angstrom"],
        frozen["elements"].tolist(),
        frozen["b_factor_angstrom2"] / 4,
        pixel_size,
        len(theirs),
    )
    full, half = np.fft.fftfreq(len(theirs)), np.fft.rfftfreq(len(theirs))
    z, y, x = np.meshgrid(full, full, half, indexing="ij")
    averaged = np.fft.rfftn(np.asarray(ours, float))
    averaged *= np.sinc(x / 2) * np.sinc(y / 2) * np.sinc(z / 2)
    wavelength = 0.019687  # Å, at 300 kV
    averaged *= 1.043 * wavelength * pixel_size / 47.87801
    expected = np.fft.rfftn(theirs.astype(float))
    shell = (20 * np.sqrt(x**2 + y**2 + z**2)).astype(int)
    for number in range(10):
        a, b = averaged[shell == number], expected[shell == number]
        lengths = np.linalg.norm(a), np.linalg.norm(b)
        correlation = np.vdot(a, b).real / np.prod(lengths)
        # Voxels of 0.5 Å alias beyond 1 Å, which adds up to 2e-4 of energy at 2 Å.
        assert correlation > 0.9998
        assert lengths[0] / lengths[1] == pytest.approx(1, abs=1e-3)


def test_solvent_is_subtracted_where_atoms_are(model):
    def contrast(element, k2):
        volume = 0 if element == "H" else 16.7
        solvent = 3.6 * np.pi / 150.41262 * volume
        return peng(element, k2) - solvent * np.exp(-np.pi * volume ** (2 / 3) * k2)

    found = jr.template_from_atoms(
        pixel_size_angstrom=PIXEL_SIZE, side=SIDE, solvent_potential_volt=3.6, **model
    )
    assert relative(found, direct_sum(model, contrast)) < CLOSE


def test_exposure_and_detector(model):
    """The mean over many separate exposures; the detector's curve applied by hand."""

    def damaged(element, k2):
        k = np.maximum(np.sqrt(k2), 1e-9)
        critical = 0.8 * (0.245 * k**-1.665 + 2.81)  # at 200 kV
        exposures = 10 + 20 * (np.arange(400) + 0.5) / 400
        kept = np.mean([np.exp(-n / (2 * critical)) for n in exposures], axis=0)
        return peng(element, k2) * kept * (1 - PIXEL_SIZE * k)

    found = jr.template_from_atoms(
        pixel_size_angstrom=PIXEL_SIZE,
        side=SIDE,
        exposure_e_per_angstrom2=(10.0, 30.0),
        voltage_kv=200.0,
        mtf=((0.0, 1.0), (1.0, 0.0)),
        **model,
    )
    assert relative(found, direct_sum(model, damaged)) < CLOSE


def test_the_table_is_gemmis():
    table = scattering_factors()
    assert len(table) == 98 + 1  # deuterium is hydrogen
    for name, factors in table.items():
        np.testing.assert_allclose(
            factors, gemmi.Element(name).c4322.get_coefs(), rtol=1e-6
        )


def test_simulated_atoms_have_the_same_frame():
    """The simulator's volume of the same atoms as weighted points."""
    atoms = sim.random_globule(30, 9.0, np.random.default_rng(0))
    there = sim.potential_volume(atoms, SIDE, PIXEL_SIZE)
    here = jr.template_from_atoms(
        atoms.positions_angstrom, ["C"] * 30, atoms.b_factor_angstrom2, PIXEL_SIZE, SIDE
    )
    assert np.corrcoef(there.ravel(), np.asarray(here).ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_slopes_are_those_of_differences(model):
    """Of a contrast with another volume, along random directions; in float32, hence 1 %."""
    other = jnp.asarray(np.random.default_rng(5).standard_normal((SIDE,) * 3), jnp.float32)
    rng = np.random.default_rng(6)
    names = ("positions_angstrom", "b_factor_angstrom2", "occupancy")

    @jax.jit
    def contrast(values, pixel_size):
        volume = jr.template_from_atoms(
            pixel_size_angstrom=pixel_size, side=SIDE, **(model | values)
        )
        return jnp.vdot(volume, other)

    start = {name: jnp.asarray(model[name]) for name in names}
    slope, by_pixel_size = jax.grad(contrast, argnums=(0, 1))(start, PIXEL_SIZE)
    for name, step in zip(names, (0.02, 0.5, 0.05), strict=True):
        way = jnp.asarray(rng.standard_normal(start[name].shape), jnp.float32)

        def at(length, name=name, way=way):
            return contrast(start | {name: start[name] + length * way}, PIXEL_SIZE)

        difference = (at(step) - at(-step)) / (2 * step)
        assert float(jnp.vdot(slope[name], way)) == pytest.approx(
            float(difference), rel=0.01, abs=0.01 * abs(float(at(0)))
        )
    wider, finer = contrast(start, PIXEL_SIZE + 0.004), contrast(start, PIXEL_SIZE - 0.004)
    assert float(by_pixel_size) == pytest.approx(float((wider - finer) / 0.008), rel=0.02)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"elements": ["C", "Xx"] * 20}, "'Xx'.*no electron scattering factors"),
        (
            {"elements": ["C"] * 39},
            r"positions_angstrom: shape \(40, 3\); expected \(39, 3",
        ),
        ({"side": 15}, "side 15.*even"),
        ({"pixel_size_angstrom": 0.0}, "more than 0"),
        ({"pixel_size_angstrom": 0.5}, r"furthest atom.*at least \d+ px"),
        ({"exposure_e_per_angstrom2": (30.0, 30.0)}, "before, after"),
    ],
)
def test_what_is_refused(model, changed, words):
    given = {"pixel_size_angstrom": PIXEL_SIZE, "side": SIDE, **model, **changed}
    with pytest.raises(jr.InputError, match=words):
        jr.template_from_atoms(**given)
