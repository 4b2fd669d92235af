"""Runs that are interrupted and resumed, and checkpoints that do not match."""

import errno
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import jaxrefine
from jaxrefine.app.cli import main
from jaxrefine.app.cluster.process_group import ProcessGroup
from jaxrefine.app.config import Config
from jaxrefine.app.console.interrupts import Stop, Stopped
from jaxrefine.app.run import checkpoint as checkpoint_module
from jaxrefine.app.run import images, pipeline
from jaxrefine.app.run.results import Results
from jaxrefine.io.mrc import read_image, write_image
from tests import subprocess_runs
from tests.subprocess_runs import change

# Tests run on four devices: batches of four.
PER_MICROGRAPH = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data, and the table from an undisturbed run."""
    folder = subprocess_runs.several_micrographs(
        tmp_path_factory.mktemp("parts"), copies=1, particles=PER_MICROGRAPH
    )
    assert main([str(folder / "refine.yaml"), "--output", str(folder / "whole.csv")]) == 0
    assert not (folder / "whole.csv.parts").exists()
    return folder, (folder / "whole.csv").read_bytes()


@pytest.fixture
def data(made, monkeypatch):
    """The same for a test that disturbs the run; everything is restored."""
    folder, expected = made
    config = (folder / "refine.yaml").read_bytes()
    table = (folder / "match_results.csv").read_bytes()
    monkeypatch.chdir(folder)
    yield folder, expected
    (folder / "refine.yaml").write_bytes(config)
    (folder / "match_results.csv").write_bytes(table)
    (folder / "out.csv").unlink(missing_ok=True)
    shutil.rmtree(folder / "out.csv.parts", ignore_errors=True)


def refine(*options):
    return main(["refine.yaml", "--output", "out.csv", *options])


def interrupt_after(monkeypatch, batches):
    """Run for a number of batches, then as after Ctrl-C; returns the last message."""
    stop, count, store = Stop(), 0, Results.store

    def counting(self, *arguments):
        nonlocal count
        count += 1
        if count == batches:
            stop.request("interrupted", 130)
        store(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(Results, "store", counting)
        config = Config.load("refine.yaml")
        pipeline.run(
            config,
            output=pipeline.Path("out.csv"),
            quiet=True,
            processes=ProcessGroup(stop),
        )
    assert stopped.value.exit_code == 130
    return str(stopped.value)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_continued_run_writes_the_same_bytes(data, monkeypatch, capsys, batches):
    """Also within a micrograph, of which only the rest is refined."""
    folder, expected = data
    words = interrupt_after(monkeypatch, batches)
    done = {1: 4, 2: 5, 3: 9}[batches]
    assert f"interrupted: {done} of 10 particles are kept in out.csv.parts" in words
    assert not (folder / "out.csv").exists()

    capsys.readouterr()
    assert refine() == 0
    printed = capsys.readouterr()
    whole = 0 if batches == 1 else 1
    assert f"{done} of 10 particles are already refined" in printed.err
    assert f"({whole} of 2 micrographs are complete)" in printed.err
    assert f"s ({done} of them by an earlier run)" in printed.out
    assert (folder / "out.csv").read_bytes() == expected
    assert not (folder / "out.csv.parts").exists()


@pytest.mark.slow
def test_only_what_is_left_is_refined(data, monkeypatch):
    interrupt_after(monkeypatch, 2)
    store, rows = Results.store, []

    def noting(self, batch, *found):
        rows.extend(batch.tolist())
        store(self, batch, *found)

    monkeypatch.setattr(Results, "store", noting)
    assert refine("-q") == 0
    assert len(rows) == PER_MICROGRAPH


@pytest.mark.slow
def test_within_a_micrograph_too_results_are_saved(data, monkeypatch):
    """All results except those of the last seconds are kept, however the run ends."""
    monkeypatch.setattr(pipeline, "_SECONDS_BETWEEN_SAVES", 0.0)
    saved, save = [], checkpoint_module.Checkpoint.save

    def noting(self, number, rows, columns):
        saved.append(len(rows))
        save(self, number, rows, columns)

    monkeypatch.setattr(checkpoint_module.Checkpoint, "save", noting)
    assert refine("-q") == 0
    assert saved == [4, 5, 5, 4, 5, 5]


# --- what does not fit -------------------------------------------------------------------


@pytest.mark.slow
def test_a_changed_configuration_is_refused_by_name(data, monkeypatch, capsys):
    folder, expected = data
    interrupt_after(monkeypatch, 2)
    change(
        folder,
        apply_global_filtering=False,
        pixel_size_refinement_config={
            "enabled": False,
            "pixel_size_min": -0.1,
            "pixel_size_max": 0.005,
            "pixel_size_step": 0.001,
        },
    )
    assert refine() == 2
    error = capsys.readouterr().err
    assert "apply_global_filtering was true and is false" in error
    assert "pixel_size_min was -0.005 and is -0.1" in error
    assert "pixel_size_max" not in error
    assert "out.csv.parts" in error and "--fresh" in error
    assert (
        len(subprocess_runs.checkpoint_of(folder / "out.csv")) == 1
    )  # refusing deletes nothing
    assert refine("--fresh", "-q") == 0
    assert (folder / "out.csv").read_bytes() != expected


@pytest.mark.slow
def test_what_computes_may_change(data, monkeypatch):
    folder, expected = data
    interrupt_after(monkeypatch, 2)
    change(folder, computational_config={"gpu_ids": "auto", "num_cpus": 2})
    assert refine("-q") == 0
    assert (folder / "out.csv").read_bytes() == expected


@pytest.mark.slow
def test_changed_files_are_refused_by_name(data, monkeypatch, capsys):
    folder, _ = data
    interrupt_after(monkeypatch, 2)
    image = folder / "copy0_micrograph_0.mrc"
    write_image(image, read_image(image), 2.0)  # the same values, at another time
    assert refine() == 2
    assert "copy0_micrograph_0.mrc has changed" in capsys.readouterr().err
    table = folder / "match_results.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert refine() == 2
    assert "the particle table has other content" in capsys.readouterr().err
    assert refine("--fresh", "-q") == 0


def test_another_version_is_refused(data, monkeypatch, capsys):
    interrupt_after(monkeypatch, 2)
    monkeypatch.setattr(jaxrefine, "__version__", "99")
    assert refine() == 2
    version = re.escape("and is 99")
    assert re.search(rf"jaxrefine was [\d.]+ {version}", capsys.readouterr().err)


class _Harmful:
    def __reduce__(self):
        return (print, ("run by a file",))


def _pickled(path):
    with np.load(path) as file:
        arrays = dict(file)
    harmful = np.array([_Harmful()] * len(arrays["refined_mip"]), object)
    np.savez(path, **{**arrays, "refined_mip": harmful})


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def _of_other_rows(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "_rows": arrays["_rows"] + 1})


def _short(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "refined_snr": arrays["refined_snr"][:1]})


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        _flipped,
        _pickled,
        _of_other_rows,
        _short,
    ],
    ids=["cut", "empty", "flipped bit", "pickle", "other rows", "short column"],
)
def test_a_damaged_part_is_refined_anew(data, monkeypatch, capsys, damage):
    folder, expected = data
    interrupt_after(monkeypatch, 2)
    (path,) = subprocess_runs.checkpoint_of(folder / "out.csv")
    damage(path)
    assert refine() == 0
    printed = capsys.readouterr()
    assert re.search(r"warning: out\.csv\.parts/000000\.npz: damaged", printed.err)
    assert "run by a file" not in printed.out
    assert "continuing" not in printed.err
    assert (folder / "out.csv").read_bytes() == expected


def test_without_its_description_each_part_still_has_its_mark(data, monkeypatch, capsys):
    folder, expected = data
    interrupt_after(monkeypatch, 2)
    (folder / "out.csv.parts" / "run.json").write_text("{")
    assert refine() == 0
    assert "run.json: damaged" in capsys.readouterr().err
    assert (folder / "out.csv").read_bytes() == expected


def test_unreadable_files_are_tried_once_more(data, monkeypatch):
    folder, expected = data
    stop, store = Stop(), Results.store_unreadable

    def stopping(self, rows):
        stop.request("interrupted", 130)
        store(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(images, "read_image", _unreadable)
        patch.setattr(Results, "store_unreadable", stopping)
        with pytest.raises(Stopped):
            pipeline.run(
                Config.load("refine.yaml"),
                output=pipeline.Path("out.csv"),
                quiet=True,
                processes=ProcessGroup(stop),
            )
    assert subprocess_runs.checkpoint_of(folder / "out.csv")
    assert refine("-q") == 0
    assert (folder / "out.csv").read_bytes() == expected


def _unreadable(path):
    raise jaxrefine.InputError(f"{path}: the network is away")


def test_the_folder_s_place_is_taken(data, capsys):
    folder, _ = data
    (folder / "out.csv.parts").write_text("mine")
    assert refine() == 2
    assert "out.csv.parts: cannot be used" in capsys.readouterr().err
    (folder / "out.csv.parts").unlink()


def test_strangers_files_are_left_alone(data, capsys):
    folder, _ = data
    (folder / "out.csv.parts").mkdir()
    (folder / "out.csv.parts" / "mine.txt").write_text("mine")
    assert refine("--fresh") == 0
    assert "out.csv.parts: cannot be removed" in capsys.readouterr().err
    assert [path.name for path in (folder / "out.csv.parts").iterdir()] == ["mine.txt"]
    (folder / "out.csv.parts" / "mine.txt").unlink()


# --- real processes ----------------------------------------------------------------------


@pytest.mark.slow
def test_one_output_has_one_run_and_a_killed_one_continues(tmp_path):
    """The system releases the lock of a killed run, which could not do so itself."""
    folder = subprocess_runs.several_micrographs(tmp_path, particles=1)
    output = folder / "out.csv"
    # Time enough for the second to start, on a busy machine too.
    first = subprocess_runs.start(folder, "--output", "out.csv", pause_s=10.0)
    subprocess_runs.wait_until(lambda: subprocess_runs.checkpoint_of(output))
    (second,) = subprocess_runs.ends([subprocess_runs.start(folder, "--output", "out.csv")])
    assert second[0] == 2
    assert "out.csv: another run is writing this output" in second[2]
    first.kill()
    first.communicate()
    kept = len(subprocess_runs.checkpoint_of(output))
    assert 1 <= kept < 4
    (third,) = subprocess_runs.ends([subprocess_runs.start(folder, "--output", "out.csv")])
    assert third[0] == 0, third
    assert f"({kept} of 4 micrographs are complete)" in third[2]
    (whole,) = subprocess_runs.ends(
        [subprocess_runs.start(folder, "--output", "whole.csv")]
    )
    assert whole[0] == 0
    assert output.read_bytes() == (folder / "whole.csv").read_bytes()


@pytest.mark.nightly
def test_kill_study(made):
    """The study of benchmarks/, with two kills."""
    folder, _ = made
    study = subprocess_runs.ROOT / "benchmarks" / "kill_study.py"
    done = subprocess.run(
        [sys.executable, study, "refine.yaml", "--kills", "2"],
        cwd=folder,
        env=subprocess_runs.environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"2 kills, 0 results lost, 0 runs failed, 0 of [1-3] tables", done.stdout
    )
    assert done.stderr == ""


@pytest.mark.slow
def test_ctrl_c(tmp_path):
    """Once: results are saved, with a message how to resume. Twice: ends at once."""
    folder = subprocess_runs.several_micrographs(tmp_path)
    output = folder / "out.csv"
    run = subprocess_runs.start(folder, "--output", "out.csv", pause_s=2.0)
    subprocess_runs.wait_until(lambda: subprocess_runs.checkpoint_of(output))
    run.send_signal(signal.SIGINT)
    ((code, _, error),) = subprocess_runs.ends([run])
    assert code == 130
    assert re.search(r"interrupted: \d+ of 12 particles are kept in out\.csv\.parts", error)
    assert "Traceback" not in error

    run = subprocess_runs.start(folder, "--output", "twice.csv", pause_s=60.0)
    assert run.stdout.readline() == "pausing\n"
    run.send_signal(signal.SIGINT)
    while "once more kills at once" not in (line := run.stderr.readline()):
        assert line, "it ended at the first signal"
    assert run.poll() is None  # busy with its batch
    run.send_signal(signal.SIGINT)
    asked = time.monotonic()
    ((code, _, _),) = subprocess_runs.ends([run])
    assert code == -signal.SIGINT and time.monotonic() - asked < 5.0


# Ctrl-C at the moment at which a module is asked for.
INTERRUPTED_IMPORT = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
module = sys.argv.pop(1)
class Interrupt:
    def find_spec(self, name, *more):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("jaxrefine", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["jaxrefine.app.cli", "numpy", "jax"])
def test_ctrl_c_while_loading(module):
    """From the start of our code on: one line, whatever is being imported."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, "refine", "none.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=subprocess_runs.ROOT,
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted\n"


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS]
)
def test_a_file_system_without_locks(data, monkeypatch, code):
    """EACCES, which some file systems return for a held lock, is distinguished from it."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*arguments):
        raise OSError(code, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    checkpoint = object.__new__(checkpoint_module.Checkpoint)
    checkpoint.folder = checkpoint._output = data[0] / "out.csv.parts"
    checkpoint.folder.mkdir()
    said = []
    monkeypatch.setattr(checkpoint_module.log, "warning", lambda *words: said.append(words))
    assert checkpoint._take_lock() is None
    assert "has no locks" in said[0][0]
    assert [path.name for path in checkpoint.folder.iterdir()] in ([], ["lock"])
