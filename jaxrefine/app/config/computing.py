"""The section of devices, batches and workers."""

import re
from typing import Annotated, ClassVar, Literal

from jaxrefine.app.config.schema import Rule, Section

_GPU_WORDS = "auto, all, cpu, cuda:N, a GPU number, or a list of GPU numbers and cuda:N"
_CUDA = re.compile(r"cuda(?::([0-9]{1,4}))?")


def _known_devices(gpu_ids: int | str | tuple[int | str, ...]) -> bool:
    if gpu_ids in ("auto", "all", "cpu"):
        return True
    listed = gpu_ids if isinstance(gpu_ids, tuple) else (gpu_ids,)
    names = [name for name in listed if isinstance(name, str)]
    only_cpu = set(listed) == {"cpu"}
    return only_cpu or all(_CUDA.fullmatch(name) for name in names)


def _gpu_numbers(gpu_ids: int | str | tuple[int | str, ...]) -> list[int]:
    listed = gpu_ids if isinstance(gpu_ids, tuple) else (gpu_ids,)
    return [gpu for gpu in listed if isinstance(gpu, int)]


_BATCH_WORDS = "auto or a whole number, 1 or more"


class ComputationalConfig(Section):
    """Devices, memory and threads.

    Attributes:
        gpu_ids: `auto`: all accelerators, or the CPU if there are none. `all`: all
            accelerators. `cpu`. A GPU's number, `cuda:N`, or a list of these.
        num_cpus: Threads that read and prepare the next micrographs, at least 1.
        batch_size: Orientations in one matrix product: `auto`, as many as the device's free
            memory allows, or a number. It is halved if the device runs out of memory.
        precision: Precision of the inputs of matrix products; `auto` is float16 on
            accelerators and float32 on CPUs. Results do not depend on it, because the best
            poses are scored again.
        backend: No effect. Accepted because Leopard-EM's files may contain it.
        compilation_cache: Where compiled programs are kept for later runs: `auto`, the
            user's cache folder; `off`; or a folder.
    """

    gpu_ids: Annotated[int | str | tuple[int | str, ...], _GPU_WORDS] = "auto"
    num_cpus: int = 1
    batch_size: Annotated[int | str, _BATCH_WORDS] = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    backend: str = "batched"
    compilation_cache: str = "auto"

    rules: ClassVar = (
        Rule(
            "gpu_ids",
            lambda c: c.gpu_ids != (),
            f"an empty list names no device; must be {_GPU_WORDS}",
        ),
        Rule(
            "gpu_ids",
            lambda c: min(_gpu_numbers(c.gpu_ids), default=0) >= 0,
            "GPU numbers must be 0 or more",
        ),
        Rule("gpu_ids", lambda c: _known_devices(c.gpu_ids), f"must be {_GPU_WORDS}"),
        Rule("num_cpus", lambda c: c.num_cpus >= 1, "must be 1 or more"),
        Rule(
            "batch_size",
            lambda c: (
                c.batch_size == "auto"
                or (isinstance(c.batch_size, int) and c.batch_size >= 1)
            ),
            f"must be {_BATCH_WORDS}",
        ),
        Rule(
            "compilation_cache",
            lambda c: c.compilation_cache,
            "must be auto, off or a folder",
        ),
    )

    @property
    def devices(self) -> str | tuple[int, ...]:
        """`auto`, `all`, `cpu`, or the GPU numbers, each once, in the order given."""
        listed = self.gpu_ids if isinstance(self.gpu_ids, tuple) else (self.gpu_ids,)
        words = [name for name in listed if name in ("auto", "all", "cpu")]
        if words:
            return str(words[0])
        matches = [_CUDA.fullmatch(str(name)) for name in listed]
        numbers = [
            int(match[1] or 0) if match else int(name)
            for name, match in zip(listed, matches, strict=True)
        ]
        return tuple(dict.fromkeys(numbers))
