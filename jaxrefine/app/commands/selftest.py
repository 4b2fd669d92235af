"""`jaxrefine selftest`: compare the results of a device with known answers."""

import argparse

from jaxrefine.app.console.exit_codes import EXIT_CHECK_FAILED, EXIT_WRITTEN
from jaxrefine.app.console.output import say

HELP = "compare the results of a device with known answers"

_DESCRIPTION = """\
Compares the results of a device with known answers: central slices, CTF and score with
float64 sums; the search in every precision with one that scores every pose by Fourier
transforms. Run it on a new GPU or after a driver update. Exit code 0: all checks passed;
1: a check failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--device",
        nargs="+",
        default=["auto"],
        metavar="WORD",
        help="as gpu_ids in the configuration: auto (the default: every accelerator, "
        "otherwise the CPU), all, cpu, numbers of GPUs, or cuda:N",
    )


def run(options: argparse.Namespace) -> int:
    """Print one line per check for each device."""
    import jax
    from jaxlib.version import __version__ as jaxlib_version

    import jaxrefine
    from jaxrefine.app.demo.selftest import run_checks
    from jaxrefine.compilation import use_compilation_cache
    from jaxrefine.refine.sharding import select_devices

    words = options.device
    devices = select_devices(words[0] if len(words) == 1 else words)
    if devices[0].platform == "cpu":
        devices = devices[:1]  # all simulated devices are the same CPU
    use_compilation_cache("auto")
    versions = f"jaxrefine {jaxrefine.__version__}, jax {jax.__version__}, "
    versions += f"jaxlib {jaxlib_version}"
    say(f"{versions}; the first time, most of the time is compilation")
    failed = []
    for device in devices:
        say(f"{device} ({device.device_kind}), {device.client.platform_version.strip()}")
        try:
            for check in run_checks(device):
                word = "passed" if check.passed else "FAILED"
                numbers = f"{check.deviation:8.2g} of {check.bound:g}"
                say(f"  {word}  {check.name:50} {numbers}")
                if not check.passed:
                    failed.append(f"{check.name} ({device})")
        except jax.errors.JaxRuntimeError as error:
            say(f"  FAILED  the next check stopped with an error: {error}")
            failed.append(f"a check stopped with an error ({device})")
    if not failed:
        say("all checks passed")
        return EXIT_WRITTEN
    say(f"failed: {'; '.join(failed)}")
    say(
        "do not trust the results of this device: try another driver or version of jax, and"
    )
    say("use `gpu_ids: cpu` until all checks pass")
    return EXIT_CHECK_FAILED
