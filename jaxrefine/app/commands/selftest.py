"""`jaxrefine selftest`: whether a device computes what it should."""

import argparse

from jaxrefine.app.console.exit_codes import EXIT_CHECK_FAILED, EXIT_WRITTEN
from jaxrefine.app.console.output import say

HELP = "compare a device's numbers with known answers"

_DESCRIPTION = """\
Compares what a device computes with known answers: central slices, CTF and score with
float64 sums, the search in every precision with one that scores every pose by transforms.
To be run on a new GPU, or after a new driver. Exit code 0: all passed; 1: a check failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--device",
        nargs="+",
        default=["auto"],
        metavar="WORD",
        help="as gpu_ids in the configuration: auto (the default: every accelerator, else "
        "the CPU), all, cpu, numbers of GPUs, or cuda:N",
    )


def run(options: argparse.Namespace) -> int:
    """Print a line per check of each device."""
    import jax
    from jaxlib.version import __version__ as jaxlib_version

    import jaxrefine
    from jaxrefine.app.demo.selftest import run_checks
    from jaxrefine.app.run.devices import use_compilation_cache
    from jaxrefine.refine.sharding import select_devices

    words = options.device
    devices = select_devices(words[0] if len(words) == 1 else words)
    if devices[0].platform == "cpu":
        devices = devices[:1]  # the others are the same CPU
    use_compilation_cache("auto")
    versions = f"jaxrefine {jaxrefine.__version__}, jax {jax.__version__}, "
    versions += f"jaxlib {jaxlib_version}"
    say(f"{versions}; most of the time goes into compiling, the first time")
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
            say(f"  FAILED  the next check broke off: {error}")
            failed.append(f"a check broke off ({device})")
    if not failed:
        say("all checks passed")
        return EXIT_WRITTEN
    say(f"failed: {'; '.join(failed)}")
    say("do not trust this device's results: try another driver or version of jax, and")
    say("`gpu_ids: cpu` until all checks pass")
    return EXIT_CHECK_FAILED
