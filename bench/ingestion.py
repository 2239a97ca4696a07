"""Compares ingestion, statistics and Transform with TFX's own components, and with four times the images.

`python -m bench.ingestion 1000000` runs the three once on synthetic images and prints time, peak memory and disk use.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.comparison import Comparison
from bench.images import mnist_folder, write_synthetic_images
from bench.timing import BenchmarkError, alternately, in_new_process, peak_memory_mb
from components.settings import DataSettings
from pipeline.metadata.store import METADATA_FILE
from runtime import reader_processes, spare_process

_AREA: Final = "ingestion"
_IMAGES: Final = {"tiny": 700, "small": 7_000, "full": 70_000}
_FILES: Final = {"tiny": 100, "small": 2_000, "full": 20_000}
_AT_ONCE: Final = {"tiny": 2, "small": 4, "full": 4}
_MAX_MEMORY: Final = 1.15
_MAX_OF_ONE_CORE, _MAX_OF_ONE_PROCESS = 0.6, 1.1
_BEAM_ARGS: Final = [
    "--direct_running_mode=in_memory",
    "--direct_num_workers=1",
    "--sdk_container_image=in-process",
]


def compare(size: str, repetitions: int) -> list[Comparison]:
    """All rows of this area. A row's data are created once; its two sides are timed alternately."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = _IMAGES[size]
        once, four_times = folder / "once", folder / "four_times"
        write_synthetic_images(once, count, seed=0)
        write_synthetic_images(four_times, 4 * count, seed=0)
        data = mnist_folder() if size == "full" else once
        files = write_image_files(folder / "files", _FILES[size])
        examples = folder / "finished"
        _ingest(data, examples)
        pairs: list[tuple[str, str, float, int, Callable[[], float], Callable[[], float]]] = [
            (
                "ImageExampleGen",
                "TFX's ImportExampleGen copying the same finished records",
                1 / 3,
                count,
                lambda: _seconds([_image_example_gen(data)], folder),
                lambda: _seconds([_import_example_gen(examples)], folder),
            ),
            (
                "StatisticsGen",
                "TFX's StatisticsGen on the same examples",
                1 / 3,
                count,
                lambda: _seconds_after(_image_example_gen(data), _our_statistics, folder),
                lambda: _seconds_after(_image_example_gen(data), _stock_statistics, folder),
            ),
            (
                "Transform, graph only",
                "Transform with materialised output",
                1 / 3,
                count,
                lambda: _seconds_after(_image_example_gen(data), _transform(materialize=False), folder),
                lambda: _seconds_after(_image_example_gen(data), _transform(materialize=True), folder),
            ),
            (
                "a folder of JPEG and PNG files",
                "a loop that only opens and decodes them",
                0.9,  # on two cores; ours also verifies, measures and hashes each file
                _FILES[size],
                lambda: _read_at_once(files, sorted(os.sched_getaffinity(0))[:2], 1),
                lambda: _open_and_decode(files),
            ),
            (
                f"ExampleGen + StatisticsGen + Transform, {4 * count:,} images",
                f"the same of {count:,}",
                4.4,
                4 * count,
                lambda: _three_components(four_times, folder)[0],
                lambda: _three_components(once, folder)[0],
            ),
        ]
        rows = []
        for what, reference, max_ratio, items, ours, theirs in pairs:
            ours_s, reference_s = alternately(ours, theirs, repetitions)
            rows.append(Comparison(_AREA, what, reference, ours_s, reference_s, max_ratio, items))
        what, reference, *_ = pairs[-1]
        more_mb, fewer_mb = alternately(  # in a process of its own, since memory left by others would count
            lambda: in_new_process(_three_components, four_times, folder)[1],
            lambda: in_new_process(_three_components, once, folder)[1],
            repetitions,
        )
        rows.append(Comparison(_AREA, f"{what}: peak memory", reference, more_mb, fewer_mb, _MAX_MEMORY, unit="MB"))
        return [*rows, *_rows_of_cores(files, _FILES[size], _AT_ONCE[size], repetitions)]


def write_image_files(folder: Path, count: int) -> Path:
    """Write `count` photographs of 160x120 pixels, JPEG and PNG: crops of scikit-learn's two sample images."""
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True)
    photographs = load_sample_images().images
    random = np.random.default_rng(0)
    for row in range(count):
        top, left = random.integers(0, (427 - 120, 640 - 160))
        crop = Image.fromarray(photographs[row % 2][top : top + 120, left : left + 160])
        crop.save(folder / f"{row:06d}.{('jpg', 'png')[row // 2 % 2]}", quality=90, compress_level=1)
    return folder


def _rows_of_cores(files: Path, count: int, at_once: int, repetitions: int) -> list[Comparison]:
    """Two cores against one, and several processes on two cores against one process; nothing on a single core."""
    two, what = sorted(os.sched_getaffinity(0))[:2], "a folder of JPEG and PNG files"
    if len(two) < 2:
        return []
    measured = [
        (_read_at_once(files, two, 1), _read_at_once(files, two[:1], 1), _read_at_once(files, two, at_once))
        for _ in range(repetitions)
    ]
    both, one, several = zip(*measured, strict=True)
    linear = tuple(at_once * seconds for seconds in both)
    return [
        Comparison(_AREA, f"{what}, two cores", "one core", both, one, _MAX_OF_ONE_CORE, count),
        Comparison(
            _AREA, f"{what}, {at_once} processes on two cores", f"{at_once} x one process", several, linear,
            _MAX_OF_ONE_PROCESS, at_once * count,
        ),
    ]  # fmt: skip


def _read_at_once(files: Path, cores: list[int], processes: int) -> float:
    """Seconds in which so many processes, on these cores together, each read all files."""
    context = get_context("spawn")
    ready = context.Barrier(processes)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_prepare, initargs=(ready, cores, files)
    ) as all_:
        return max(all_.map(_read_all, [files] * processes))


def _prepare(ready: Any, cores: list[int], files: Path) -> None:
    """Stay on the cores, import what reading imports, as a run does, and wait for the other processes."""
    os.sched_setaffinity(0, cores)  # before TensorFlow counts them
    spare_process.prepare("serving.model.smoke_check")
    reader_processes.prepare()
    from images.stored import from_file_bytes

    for path in sorted(files.iterdir())[:4]:  # of both formats
        from_file_bytes(path.read_bytes())
    ready.wait()


def _read_all(folder: Path) -> float:
    """Our reader: opens, decodes, describes, and digests each file. Raises BenchmarkError if it rejects one."""
    from components.sources.plan import Reject
    from components.sources.registry import plan_source

    started = time.perf_counter()
    for shard in plan_source(DataSettings(source="folder", path=str(folder))).shards:
        for image in shard.read():
            if isinstance(image, Reject):
                raise BenchmarkError(f"{image.image_id} is rejected: {image.reason}")
    return time.perf_counter() - started


def _open_and_decode(folder: Path) -> float:
    started = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image.load()
    return time.perf_counter() - started


def _image_example_gen(data: Path) -> Any:
    from components.example_gen.component import ImageExampleGen
    from components.sources.registry import plan_source

    settings = DataSettings(source="idx", path=str(data))
    fingerprint = plan_source(settings).fingerprint
    return ImageExampleGen(settings=settings, data_fingerprint=fingerprint, source_fingerprint="")


def _ingest(data: Path, target: Path) -> None:
    """Run ImageExampleGen on `data` and move its examples to `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        _run([_image_example_gen(data)], Path(folder))
        [written] = Path(folder).glob("artifacts/ImageExampleGen/examples/*")
        shutil.move(written, target)


def _import_example_gen(examples: Path) -> Any:
    from tfx.components import ImportExampleGen
    from tfx.proto import example_gen_pb2

    from schema.features import SPLITS

    splits = [example_gen_pb2.Input.Split(name=name, pattern=f"Split-{name}/*") for name in SPLITS]
    return ImportExampleGen(input_base=str(examples), input_config=example_gen_pb2.Input(splits=splits))


def _our_statistics(example_gen: Any) -> Any:
    from components.statistics_gen import SmallFeaturesStatisticsGen

    return SmallFeaturesStatisticsGen(
        examples=example_gen.outputs["examples"], schema_text=_schema_text(), source_fingerprint=""
    )


def _stock_statistics(example_gen: Any) -> Any:
    from tfx.components import StatisticsGen

    return StatisticsGen(examples=example_gen.outputs["examples"])


def _transform(*, materialize: bool) -> Callable[[Any], list[Any]]:
    """Transform to 28x28 pixels without an analysis; `materialize` writes all pixels, as TFX does by default."""

    def make(example_gen: Any) -> list[Any]:
        from tfx.components import Transform
        from tfx.proto import transform_pb2

        from components.schema_gen import CuratedSchemaGen
        from schema.features import TRAIN

        schema_gen = CuratedSchemaGen(schema_text=_schema_text())
        transform = Transform(
            examples=example_gen.outputs["examples"],
            schema=schema_gen.outputs["schema"],
            preprocessing_fn="trainer.preprocessing.preprocessing_fn",
            custom_config={"image": {"height_px": 28, "width_px": 28, "channels": 1}},
            splits_config=None if materialize else transform_pb2.SplitsConfig(analyze=[TRAIN]),
            materialize=materialize,
            disable_statistics=True,
        )
        return [schema_gen, transform]

    return make


def _schema_text() -> str:
    return resources.files("schema").joinpath("schema.pbtxt").read_text()


def _seconds(nodes: list[Any], folder: Path) -> float:
    """Seconds of the last node, run after the others in a new folder."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        return list(_run(nodes, Path(fresh)))[-1][1]


def _seconds_after(example_gen: Any, make: Callable[[Any], Any], folder: Path) -> float:
    made = make(example_gen)
    return _seconds([example_gen, *(made if isinstance(made, list) else [made])], folder)


def _three_components(data: Path, folder: Path) -> tuple[float, float]:
    """(seconds, peak resident memory in MB)."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        seconds = sum(seconds for _, seconds in _run(_first_components(data), Path(fresh)))
        return seconds, peak_memory_mb(Path(fresh))


def _first_components(data: Path) -> list[Any]:
    example_gen = _image_example_gen(data)
    return [example_gen, _our_statistics(example_gen), *_transform(materialize=False)(example_gen)]


def _run(nodes: list[Any], folder: Path) -> list[tuple[str, float]]:
    """(name, seconds) of each node; raises the error of a node that failed."""
    from tfx.orchestration import metadata
    from tfx.orchestration import pipeline as tfx_pipeline

    from pipeline.local.runner import run_pipeline

    outcomes = run_pipeline(
        tfx_pipeline.Pipeline(
            pipeline_name="bench",
            pipeline_root=str(folder / "artifacts"),
            components=nodes,
            beam_pipeline_args=_BEAM_ARGS,
        ),
        metadata.sqlite_metadata_connection_config(str(folder / METADATA_FILE)),
        lambda name, outcome: None,
    )
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return [(outcome.name, outcome.seconds) for outcome in outcomes]


def _lines_of_one_pass(count: int) -> Iterator[str]:
    """Lines with each component's time, this process's peak memory, and the artifacts' disk space."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        write_synthetic_images(data, count, seed=0)
        for component, seconds in _run(_first_components(data), Path(name)):
            yield f"{component}: {seconds:.1f} s, {count / seconds:,.0f} images/s"
        disk_bytes = sum(path.stat().st_size for path in Path(name, "artifacts").rglob("*") if path.is_file())
        yield f"artifacts: {disk_bytes / 2**20:,.0f} MiB of {count * 784 / 2**20:,.0f} MiB of pixels"
        yield f"peak memory: {peak_memory_mb(Path(name)):,.0f} MiB"


if __name__ == "__main__":
    from runtime.keras_flavour import use_keras_2

    use_keras_2()
    for line in _lines_of_one_pass(int(sys.argv[1])):
        print(f"{int(sys.argv[1]):,} images: {line}", flush=True)
