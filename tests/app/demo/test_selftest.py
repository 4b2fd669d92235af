"""The self-test: it passes here, and names the check that fails on a faulty device."""

import contextlib
import io

import jax
import pytest

from jaxrefine.app.cli import main
from jaxrefine.app.demo import selftest
from jaxrefine.app.demo.selftest import Check
from jaxrefine.physics.ctf import contrast_transfer
from jaxrefine.physics.slices import sample_slice
from jaxrefine.refine import product

CPU = ["selftest", "--device", "cpu"]


@pytest.fixture(scope="module")
def passed():
    """One run: exit code, output, problem, and the scores of the plain search."""
    kept, printed = [], io.StringIO()
    plain_scores = selftest._plain_scores

    def keep(world):
        kept.append((world, plain_scores(world)))
        return kept[0][1]

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(selftest, "_plain_scores", keep)
        code = main(CPU)
    return code, printed.getvalue(), *kept[0]


@pytest.mark.nightly
def test_it_passes_here(passed):
    code, printed, *_ = passed
    assert code == 0
    lines = printed.splitlines()
    assert f"jax {jax.__version__}" in lines[0] and "cpu" in lines[1]
    checks = lines[2:-1]
    assert all(line.startswith("  passed  ") for line in checks)
    for precision in ("float32", "float16", "bfloat16"):
        assert sum(f" {precision}:" in line for line in checks) == 3
    assert len(checks) == 14 and lines[-1] == "all checks passed"


def test_a_failed_check_is_named(monkeypatch, capsys):
    invalid = [Check("first", 0.1, 0.2), Check("second", 0.3, 0.2), Check("third", 0, 0)]
    monkeypatch.setattr(selftest, "run_checks", lambda device: iter(invalid))
    assert main(CPU) == 1
    printed = capsys.readouterr().out
    assert "FAILED  second" in printed and "passed  third" in printed
    assert "failed: second (" in printed and "gpu_ids: cpu" in printed


def test_nan_does_not_pass():
    assert not Check("", float("nan"), 1.0).passed
    assert Check("", 0, 0).passed


def test_a_device_that_breaks_off(monkeypatch, capsys):
    def broken(device):
        yield Check("first", 0.1, 0.2)
        raise jax.errors.JaxRuntimeError("INTERNAL: no bfloat16 here")

    monkeypatch.setattr(selftest, "run_checks", broken)
    assert main(CPU) == 1
    assert "INTERNAL: no bfloat16 here" in capsys.readouterr().out


def test_an_absent_device(capsys):
    assert main(["selftest", "--device", "7"]) == 2
    assert "JAX sees no such accelerator" in capsys.readouterr().err


def test_slices_and_ctfs_that_are_off(monkeypatch):
    """Wrong by 1e-4, as with reduced precision."""
    atoms = selftest.problem.some_atoms()
    monkeypatch.setattr(
        selftest,
        "sample_slice",
        lambda *arguments: [part * 1.0001 for part in sample_slice(*arguments)],
    )
    assert not selftest._central_slice(atoms, "padded").passed
    monkeypatch.setattr(
        selftest,
        "contrast_transfer",
        lambda *arguments: contrast_transfer(*arguments) * 1.0001,
    )
    assert not selftest._ctf().passed


@pytest.mark.nightly
def test_products_that_lose_digits(passed, monkeypatch):
    *_, world, z = passed
    # Scaled so low that most inputs are subnormal.
    monkeypatch.setattr(product, "_HALF_SCALE", 2.0**-16)
    assert not selftest._products(world, "float16", z).passed
