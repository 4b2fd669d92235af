"""Standard output and log files that cannot be written."""

import logging
import subprocess
import sys

import pytest

from jaxrefine.app.console.logs import set_up_logging
from tests.reference import ROOT

PROGRAM = "from jaxrefine.app.console.output import say, flush_output\n"


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code], cwd=ROOT, stderr=subprocess.PIPE, **options
    )


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_reader_that_has_gone():
    code = (
        "import time, sys; time.sleep(0.5)\nsay('a'); say('b'); flush_output(); sys.exit(7)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 7


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk_under_the_output():
    with open("/dev/full", "w") as full:
        done = run("say('a'); say('b')", stdout=full)
    assert done.returncode == 0
    assert done.stderr == b"standard output cannot be written: No space left on device\n"


def test_control_characters_are_spelt_out(capsys):
    from jaxrefine.app.console.output import say

    say("out\x1b[31m.csv\n  next\tline")
    assert capsys.readouterr().out == "out\\x1b[31m.csv\n  next\tline\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk_ends_the_log_alone(capsys):
    from pathlib import Path

    set_up_logging(quiet=False, log_file=Path("/dev/full"))
    log = logging.getLogger("jaxrefine")
    log.info("first")
    log.info("second")
    assert capsys.readouterr().err.splitlines() == [
        "first",
        "warning: --log-file: /dev/full: cannot be written: No space left on device; the "
        "run continues without it",
        "second",
    ]
    set_up_logging(quiet=False)
