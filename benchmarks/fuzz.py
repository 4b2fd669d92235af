"""Fuzzing of the readers of files.

    .venv/bin/pip install atheris
    .venv/bin/python benchmarks/fuzz.py image --seconds 900

A reader may accept a file or refuse it with an `InputError`, each error one short line.
Anything else (another exception, 10 s for one file, 3 GB of memory) is a finding: the
fuzzer stops, prints it, and saves the bytes as `crash-…` or `timeout-…` in the current
folder; `benchmarks/fuzz.py image THAT_FILE` runs them again. Coverage of jaxrefine, PyYAML
and mrcfile guides the fuzzer, starting from valid files.
"""

import argparse
import bz2
import gzip
import io
import json
import logging
import re
import sys
import tempfile
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["jaxrefine", "yaml", "mrcfile"]):
    import numpy as np

    from jaxrefine.app.config import Config
    from jaxrefine.app.config.schema import Section
    from jaxrefine.app.interchange.export_star import export
    from jaxrefine.app.interchange.import_star import import_star
    from jaxrefine.app.report.page import ReportOptions, write_report
    from jaxrefine.app.report.table_data import ReportData, load_report_data
    from jaxrefine.app.run.build import build_filters, build_grid, build_polish
    from jaxrefine.app.run.checkpoint import Checkpoint
    from jaxrefine.app.run.inputs import load_inputs
    from jaxrefine.app.run.results import Results
    from jaxrefine.data import InputError
    from jaxrefine.io.mrc import image_shape, read_image, read_volume, write_volume
    from jaxrefine.io.star.reader import imported_table, read_star
    from jaxrefine.io.star.writer import CISTEM_NUMBERS, RELION_NUMBERS, RELION_OPTICS
    from jaxrefine.io.table import decide_statistics, read_particle_table, write_table
    from jaxrefine.io.table.refined import refined_table
    from jaxrefine.io.table.schema import COLUMNS

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "data" / "reference" / "basic"
PEER = REFERENCE.parents[1] / "peer" / "refined_by_jaxrefine.csv"
ODD_CELLS = ["", "0", "-1", "nan", "-inf", "1e400", "1_0", "'a b'", '""', "#", "data_"]
# tmpfs, if available, since a file is written for each execution
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
Target = Callable[[bytes], None]


def refused_properly(error: InputError) -> None:
    """Check that a user can read the error."""
    for message in error.errors:
        short = 0 < len(message) < 2000 and "\n" not in message
        if not short:
            raise AssertionError(f"an odd message: {message[:3000]!r}") from error


# --- Targets: each returns a function of bytes, working in a folder ----------------


def config_target(folder: Path) -> Target:
    """The configuration, and the objects made from it."""
    path = folder / "config.yaml"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        config = Config.load(path)
        build_filters(config)
        build_polish(config)
        build_grid(config)

    return one


def table_target(folder: Path) -> Target:
    """The particle table, and what a run makes of it."""
    path = folder / "particles.csv"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        table = read_particle_table(path)
        start = table.start()
        if not np.isfinite(start.euler_deg).all():
            raise AssertionError("a table was accepted whose angles are not finite")
        decide_statistics(table)

    return one


def star_target(folder: Path) -> Target:
    """Particles of another program, and the converted table."""
    path, made = folder / "particles.star", folder / "sub" / "made.csv"
    made.parent.mkdir()
    sound = star_files(folder)

    def one(data: bytes) -> None:
        path.write_bytes(altered(data, sound, r"(\s+)"))
        made.unlink(missing_ok=True)
        try:
            count = import_star(path, made, 64)
        except InputError:
            if any(made.parent.iterdir()):
                raise AssertionError("a file was refused, but something written") from None
            raise
        if count == 0:
            raise AssertionError("a table of no particles was made")
        particles = read_star(path)
        maps = [("mean.mrc", "variance.mrc")] * len(particles)
        write_table(imported_table(particles, 512, maps), made)
        try:
            read_particle_table(made)
        except InputError as error:
            raise AssertionError(f"the table that was made is invalid: {error}") from error

    return one


def report_target(folder: Path) -> Target:
    """A refined table, and its report; every 64th is drawn."""
    path, sound = folder / "refined.csv", refined_tables()

    def one(data: bytes) -> None:
        path.write_bytes(altered(data, sound, r"([,\n])"))
        numbers = load_report_data(path)
        for name, member in vars(ReportData).items():
            if isinstance(member, cached_property):
                getattr(numbers, name)
        if not np.isfinite(numbers.centre_px).all():
            raise AssertionError("a particle was accepted that is nowhere")
        if zlib.crc32(data) % 64 == 0:
            write_report(path, folder / "report", ReportOptions(threshold=9.0))

    return one


def mrc_target(folder: Path, *readers: Callable[[Path], object]) -> Target:
    """MRC files; the first byte determines the compression of the rest."""
    path = folder / "file.mrc"
    packed = {1: gzip.compress, 2: bz2.compress}

    def one(data: bytes) -> None:
        pack = packed.get(data[0] % 8 if data else 0, bytes)
        path.write_bytes(pack(data[1:]))
        for reader in readers:
            try:
                reader(path)
            except InputError as error:
                refused_properly(error)

    return one


def parts_target(folder: Path) -> Target:
    """Checkpoints; half of the bytes are used to alter valid archives."""
    inputs = load_inputs(Config.load(REFERENCE / "refine.yaml"), folder / "out.csv")
    parts = Checkpoint(inputs)
    sound = sound_part(inputs, parts, folder)
    digest = json.loads(str(sound["_made_from"]))["run"]

    def one(data: bytes) -> None:
        choose = atheris.FuzzedDataProvider(data)
        results = Results(inputs)
        parts.begin(fresh=True)
        kind = choose.ConsumeIntInRange(0, 3)
        if kind == 0:
            (parts.folder / "run.json").write_bytes(data[1:])
        content = data[1:] if kind == 1 else archive(choose, sound, digest)
        (parts.folder / "000000.npz").write_bytes(content)
        try:
            parts.close(shared=False)
            parts.begin(fresh=False)
            results.load(parts, [0])
            if results.done.any():  # it was accepted
                refined_table(inputs.table, results.columns)
                results.summary(0.0)
        finally:
            parts.close(shared=False)

    return one


def sound_part(inputs, parts: Checkpoint, folder: Path) -> dict[str, np.ndarray]:
    """The arrays in a file of results, as the program writes it."""
    parts.begin(fresh=True)
    parts.save(0, np.arange(3), Results(inputs).columns)
    with np.load(parts.folder / "000000.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    parts.close(shared=False)
    return arrays


def archive(
    choose: "atheris.FuzzedDataProvider", sound: dict[str, np.ndarray], digest: str
) -> bytes:
    """A valid archive of results, with some arrays replaced."""
    arrays = dict(sound)
    for _ in range(choose.ConsumeIntInRange(1, 3)):
        name = choose.PickValueInList(sorted(sound))
        if name == "_made_from" and choose.ConsumeBool():
            text = choose.ConsumeUnicodeNoSurrogates(60)
            made = f'{{"run": "{digest}", "images": {text}}}'
            arrays[name] = np.asarray(made if choose.ConsumeBool() else text)
            continue
        kind = choose.PickValueInList(
            ["f4", "f8", "i8", "u1", "?", "U5", "S3", "c8", "M8[s]"]
        )
        sides = choose.PickValueInList([(), (0,), (1,), (3,), (3, 2), (3, 3), (4,), (3, 1)])
        raw = choose.ConsumeBytes(np.dtype(kind).itemsize * int(np.prod(sides)))
        values = np.zeros(sides, kind)
        if kind != "U5" and len(raw) == values.nbytes:
            values = np.frombuffer(raw, kind).reshape(sides)
        arrays[name] = values
    stream = io.BytesIO()
    save = np.savez_compressed if choose.ConsumeBool() else np.savez
    save(stream, **arrays)
    return stream.getvalue()


def altered(data: bytes, sound: list[str], between: str) -> bytes:
    """The bytes themselves, or a valid text with some cells replaced."""
    if data[:1] < b"\1":
        return data[1:]
    choose = atheris.FuzzedDataProvider(data)
    cells = re.split(between, choose.PickValueInList(sound))
    for _ in range(choose.ConsumeIntInRange(1, 4)):
        kind = choose.ConsumeIntInRange(0, 3)
        if kind == 0:
            cell = choose.PickValueInList(ODD_CELLS)
        elif kind == 1:
            cell = repr(choose.ConsumeFloat())
        elif kind == 2:
            cell = repr(choose.ConsumeFloatInRange(-2e6, 2e6))
        else:
            cell = choose.ConsumeUnicodeNoSurrogates(20)
        # The separators are kept.
        cells[2 * choose.ConsumeIntInRange(0, (len(cells) - 1) // 2)] = cell
    return "".join(cells).encode()


# --- Seeds and words ---------------------------------------------------------------


def seeds(target: str, folder: Path) -> list[bytes]:
    """Small valid files."""
    if target == "config":
        root = REFERENCE.parents[3]
        files = [REFERENCE / "refine.yaml", *sorted((root / "configs").glob("*.yaml"))]
        merged = b"a: &a {x: 1}\nb: {<<: [*a, *a], y: !!float '1e3'}\nc: 1:20:30.5\n"
        return [*(file.read_bytes() for file in files), merged]
    if target == "table":
        lines = (REFERENCE / "match_results.csv").read_bytes().splitlines(keepends=True)
        return [b"".join(lines[:3]), (REFERENCE / "refined.csv").read_bytes()[:4000]]
    if target in ("star", "report"):
        texts = star_files(folder) if target == "star" else refined_tables()
        return [
            *(b"\0" + text.encode() for text in texts),
            bytes([1, *range(99)]),
            b"\1" * 50,
        ]
    if target in ("image", "volume"):
        shape = (1, 3, 4) if target == "image" else (4, 4, 4)
        path = folder / "seed.mrc"
        write_volume(path, np.arange(np.prod(shape), dtype=np.float32).reshape(shape), 1.5)
        return [bytes([kind]) + path.read_bytes() for kind in range(3)]
    return [bytes([2, *range(60)]), bytes([3]) * 30, b'\0{"jaxrefine": "0.1.0"}', b"\1PK"]


def star_files(folder: Path) -> list[str]:
    """Files as the program writes them, and one with a block of single values."""
    texts = []
    for program in ("relion", "cistem"):
        export(PEER, program, folder / "sound.star", overwrite=True)
        texts.append((folder / "sound.star").read_text())
    particles = texts[0][texts[0].index("data_particles") :]
    optics = {"rlnOpticsGroup": 1, **dict.fromkeys(RELION_OPTICS.values(), 0.5)}
    optics |= {"rlnVoltage": 300}
    single = "".join(f"_{name} '{value}' # 1\n" for name, value in optics.items())
    return [*texts, f"data_optics\n{single}{particles}"]


def refined_tables() -> list[str]:
    """Tables of three particles: refined, also polished, and of Leopard-EM."""
    header, *rows = PEER.read_text().splitlines()[:4]
    numbers = [c.name for c in COLUMNS if c.use == "polished" and c.kind != "text"]
    polished = [f"{header},{','.join(numbers)},refined_polish"]
    polished += [f"{row},{'0.25,' * len(numbers)}no_optimum" for row in rows]
    leopard = [",".join(line.split(",")[:-2]) for line in (header, *rows)]
    return ["\n".join(lines) for lines in ([header, *rows], polished, leopard)]


def words(target: str) -> list[str]:
    """Words that the fuzzer combines, in addition to bytes."""
    if target in ("table", "report"):
        return [column.name for column in COLUMNS] + ['"', "nan", "inf", "1e400", "\\x00"]
    if target == "star":
        names = {**RELION_NUMBERS, **RELION_OPTICS, **CISTEM_NUMBERS}.values()
        columns = {one for name in names for one in ([name] if type(name) is str else name)}
        return [*sorted(columns), "data_", "optics", "loop_", "'", '"', "#", "nan", "1e400"]
    if target == "config":
        tags = ["!!python/object:os.system", "!!binary", "!!set", "!!omap", "<<: *a", "&a "]
        return sorted({*key_names(Config), *tags, ".nan", ".inf", "1e-300", "leopard_em"})
    return ["MAP ", "PK", "_rows", "_made_from", "images"]


def key_names(section: type[Section]) -> set[str]:
    """All keys of a section and of its subsections."""
    names = set()
    for name, kind in section.__annotations__.items():
        names.add(name)
        if isinstance(kind, type) and issubclass(kind, Section):
            names |= key_names(kind)
    return names


TARGETS: dict[str, Callable[[Path], Target]] = {
    "config": config_target,
    "table": table_target,
    "star": star_target,
    "report": report_target,
    "image": lambda folder: mrc_target(folder, read_image, image_shape),
    "volume": lambda folder: mrc_target(folder, read_volume),
    "parts": parts_target,
}


def main() -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("again", nargs="*", help="files to run once, instead of fuzzing")
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("jaxrefine").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY))
    target = TARGETS[options.target](folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(options.target, folder)):
        (corpus / str(number)).write_bytes(seed)
    dictionary = folder / "words"
    lines = (word.replace('"', '\\"') for word in words(options.target))
    dictionary.write_text("".join(f'"{line}"\n' for line in lines))

    def one(data: bytes) -> None:
        try:
            target(data)
        except InputError as error:
            refused_properly(error)

    arguments = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-dict={dictionary}",
        "-max_len=8192",
        "-len_control=0",
        "-timeout=10",
        "-rss_limit_mb=3072",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments + (options.again or [str(corpus)]), one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
