"""The program ``bench``: each system at each batch size, one after the other, in one process on one machine."""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ddpm_ip.bench import ours, theirs
from ddpm_ip.bench.measure import Plan, Step, Timing, gflop_per_image, measure, peak
from ddpm_ip.bench.table import line, table
from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import write_json
from ddpm_ip.memory import is_out_of_memory
from ddpm_ip.output import say
from ddpm_ip.run.log import setup
from ddpm_ip.run.provenance import provenance

log = logging.getLogger("ddpm_ip.bench")

TASKS = ("train", "sample", "data")
RIVALS = ("plain", "diffusers")
SOURCES = ("resident", "mapped")  # of task data: in memory, or a memory map that is too large to be held
EVALUATIONS = 20  # of the network, in a pass of task sample
IMAGES = 4096  # random ones, of the configured size
OUT_OF_MEMORY = "out of memory"

Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Args:
        tasks: some of train, sample, data.
        batches: images a step, over all processes; by default 128, 512, 1024, on the CPU 16.
        against: the systems besides ours, some of plain and diffusers.
        steps: timed training steps; by default 30, 15 from batch 1024, and 5 on the CPU.
        out: the JSON file, or a folder for it; see :func:`output`.
    """

    tasks: Sequence[str] = TASKS
    batches: Sequence[int] | None = None
    against: Sequence[str] = RIVALS
    steps: int | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        _check_names("the task", self.tasks, TASKS)
        _check_names("--against", self.against, RIVALS)
        for name, values in (
            ("--batch_size", self.batches or ()),
            ("--steps", () if self.steps is None else (self.steps,)),
        ):
            if bad := [value for value in values if value < 1]:
                raise ConfigError(f"{name} must be at least 1, got {bad[0]}")


@dataclass(frozen=True)
class Case:
    """A row to be measured; ``source`` is where task data has its images, else None."""

    task: str
    system: str
    batch: int
    source: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.task, self.source, self.system, f"batch {self.batch}")))


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Args:
        config: the network and the recipe.
        options: what to measure.
        sets: random images, by source.
        gflop: 10^9 operations of an evaluation and of a training step, an image.
        peak: the device's measured ceilings.
        device: of this process.
        gpus: processes, each with its device.
    """

    config: Config
    options: BenchOptions
    sets: dict[str, ImageSet]
    gflop: tuple[float, float]
    peak: dict[str, float | None]
    device: torch.device
    gpus: int


def bench(config: Config, options: BenchOptions) -> list[dict[str, Any]]:
    """Measures, prints a table and writes a JSON file, which holds every finished row if the run is cut short.

    Under ``torchrun`` all processes take part in each row; the first one prints and writes.

    Args:
        config: network, image size, recipe and ``train.mixed_precision``; its data are replaced by random images.
        options: what to measure.

    Returns:
        The rows. One that failed has the reason as its ``error``, and the run continues.

    Raises:
        UserError: something that the user can put right, before anything is measured.
    """
    accelerator = _engine(config.train.mixed_precision)
    device, gpus, main = accelerator.device, accelerator.num_processes, accelerator.is_main_process
    setup(None, main)
    cases = _cases(options, device)
    _check(cases, device, gpus)
    path = output(options.out, device)
    with _random_images(config) as sets:
        log.info("measuring the peak of %s", _device_name(device))
        shared = Bench(config, options, sets, gflop_per_image(config), peak(device), device, gpus)
        record = {**_origin(), "config": _described(config), "peak": shared.peak, "rows": []}
        rows: list[dict[str, Any]] = record["rows"]
        for number, case in enumerate(cases, 1):
            log.info("%d/%d  %s ...", number, len(cases), case)
            rows.append(_row(shared, case, rows))
            log.info("%d/%d  %s: %s", number, len(cases), case, line(rows[-1]))
            if main:
                write_json(path, record)
    if main:
        say(f"{table(rows)}\n\n{path}")
    return rows


def output(out: Path | None, device: torch.device) -> Path:
    """The file that is meant: in a folder it is ``bench-{device}-{time}.json``.

    Args:
        out: a file or a folder; None for the folder benchmarks/results if there is one, else the current one.
        device: what is measured.
    """
    folder = out or Path("benchmarks/results" if Path("benchmarks/results").is_dir() else ".")
    if not folder.is_dir():
        return folder
    slug = re.sub(r"[^a-z0-9]+", "-", _device_name(device).lower()).strip("-")
    return folder / f"bench-{slug}-{datetime.now():%Y-%m-%d-%H%M%S}.json"


def _check_names(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    if bad := [name for name in given if name not in known]:
        raise ConfigError(f"{what} must be one of {', '.join(known)}, got {bad[0]!r}")


def _cases(options: BenchOptions, device: torch.device) -> list[Case]:
    """The rows in the order of measuring: small batches first, ours before the others."""
    cases = []
    for task in options.tasks:
        for batch in sorted(set(options.batches or ((128, 512, 1024) if device.type == "cuda" else (16,)))):
            for system in ("ours", *(name for name in RIVALS if name in options.against)):
                if task != "data":
                    cases.append(Case(task, system, batch))
                elif system != "diffusers":  # has no loader; its example uses PyTorch's, as the plain rows do
                    cases += [Case(task, system, batch, source) for source in SOURCES]
    return cases


def _check(cases: Sequence[Case], device: torch.device, gpus: int) -> None:
    if device.type not in ("cuda", "cpu"):
        raise ConfigError(f"bench has no clock for {device.type}: set ACCELERATE_USE_CPU=true to measure the CPU")
    if bad := [case.batch for case in cases if case.batch % gpus]:
        raise ConfigError(
            f"--batch_size {bad[0]} is not divisible by the {gpus} processes, and each takes an equal share"
        )
    if any(case.system == "diffusers" for case in cases):
        theirs.load()


def _row(bench: Bench, case: Case, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Measures one row; all processes do so together."""
    precision = _precision(bench, case)
    accelerator = _engine(precision)
    timing, error = _attempt(_builder(bench, case, precision, accelerator), _plan(bench, case), bench.device)
    units = EVALUATIONS if case.task == "sample" else 1  # what a step is made of: ms and images are those of one unit
    ms = _typical(case.task, timing.ms) / units if timing else None
    rate = _all_processes(1000 * case.batch / bench.gpus / ms if ms else None, accelerator)
    if timing is not None and rate is None:
        timing, ms, error = None, None, "failed on another process"
    p10, p90 = (np.percentile(timing.ms, (10, 90)) / units).tolist() if timing else (None, None)
    gflop = {"sample": bench.gflop[0], "train": bench.gflop[1]}.get(case.task)
    tflops = rate * gflop / 1e3 if rate and gflop else None
    top = bench.peak["matmul_tflops"]
    return {
        **dataclasses.asdict(case),
        "ours": case.system == "ours",
        "gpus": bench.gpus,
        "gpu": _device_name(bench.device),
        "precision": None if case.task == "data" else precision,
        "images_per_s": rate,
        "ratio_to_ours": _ratio(case, rate, earlier),
        "ms": ms,
        "ms_p10": p10,
        "ms_p90": p90,
        "gflop_per_image": gflop,
        "tflops": tflops,
        "share_of_peak": tflops / (bench.gpus * top) if tflops and top else None,
        "memory_gib": timing.memory_gib if timing else None,
        "warmup_s": timing.warmup_s if timing else None,
        "error": error,
    }


def _attempt(build: Callable[[], Step], plan: Plan, device: torch.device) -> tuple[Timing | None, str | None]:
    """The timing, or why there is none.

    The exception ends here, since it holds on to the failed step and its memory, which the next row needs.

    Raises:
        UserError: what the user can put right.
    """
    try:
        return measure(build, plan, device), None
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            return None, OUT_OF_MEMORY
        log.exception("this row failed, the next one follows")
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _builder(bench: Bench, case: Case, precision: Precision, accelerator: Accelerator) -> Callable[[], Step]:
    fast: Literal["auto", "off"] = "auto" if case.system == "ours" else "off"
    settings = dataclasses.replace(bench.config.train, batch_size=case.batch, mixed_precision=precision, fast=fast)
    config, images = dataclasses.replace(bench.config, train=settings), bench.sets[case.source or "resident"]
    if case.task == "data":
        if case.system == "ours":
            return lambda: ours.data(config, images, accelerator, resident=case.source == "resident")
        return lambda: ours.plain_data(config, images, accelerator)
    if case.task == "train":
        if case.system == "diffusers":
            return lambda: theirs.train(config, accelerator)
        return lambda: ours.train(config, images, accelerator)
    system = theirs if case.system == "diffusers" else ours
    return lambda: system.sample(config, EVALUATIONS, accelerator)


def _plan(bench: Bench, case: Case) -> Plan:
    cuda = bench.device.type == "cuda"
    if case.task == "sample":  # a step is a pass of EVALUATIONS
        return Plan(1, 3 if cuda else 2)
    steps = bench.options.steps or (5 if not cuda else 15 if case.batch >= 1024 else 30)
    return Plan(5 if cuda else 2, steps * (10 if case.task == "data" else 1))  # a batch of data is soon there


def _precision(bench: Bench, case: Case) -> Precision:
    """What the configuration says; else full precision on the CPU, for plain PyTorch, and for diffusers' pipeline."""
    if case.task == "sample" and case.system == "diffusers":
        return "no"
    given = bench.config.train.mixed_precision
    return given or ("no" if bench.device.type == "cpu" or case.system == "plain" else "bf16")


def _engine(precision: Precision | None) -> Accelerator:
    """A fresh engine in the same processes: Accelerate refuses another precision in one that has been set up."""
    AcceleratorState._reset_state()
    return start_engine(precision)


def _typical(task: str, ms: Sequence[float]) -> float:
    """The median; for data the mean, since loaders deliver in bursts."""
    return float(np.mean(ms) if task == "data" else np.median(ms))


def _all_processes(rate: float | None, accelerator: Accelerator) -> float | None:
    """The sum of all processes' rates; None if one of them has failed."""
    mine = torch.tensor(float("nan") if rate is None else rate, dtype=torch.float64, device=accelerator.device)
    total = float(accelerator.reduce(mine, reduction="sum"))
    return None if np.isnan(total) else total


def _ratio(case: Case, rate: float | None, earlier: Sequence[dict[str, Any]]) -> float | None:
    """Of this rate to that of ours with the same task, batch and source."""
    if case.system == "ours":
        return rate and 1.0
    same = [
        r for r in earlier if r["ours"] and (r["task"], r["batch"], r["source"]) == (case.task, case.batch, case.source)
    ]
    return rate / same[0]["images_per_s"] if same and rate and same[0]["images_per_s"] else None


@contextmanager
def _random_images(config: Config) -> Iterator[dict[str, ImageSet]]:
    """IMAGES random images of the configured size, in memory and as a map of a temporary file."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *config.shape), dtype=np.uint8)
    with tempfile.TemporaryDirectory(prefix="ddpm-ip-bench-") as folder:
        path = Path(folder) / "images.npy"
        np.save(path, pixels)
        resident = from_arrays(pixels, None, "random", config.data.image_size, progress=False)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        yield {"resident": resident, "mapped": dataclasses.replace(resident, pixels=mapped)}


def _origin() -> dict[str, Any]:
    """When, where and from what."""
    found = provenance()
    versions = found["versions"]
    for name in ("diffusers", "triton"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return {
        "date": found["started"],
        "hardware": found["hardware"],
        "versions": versions,
        "git": found["git"],
        "command": found["command"],
    }


def _described(config: Config) -> dict[str, Any]:
    tree = config.to_dict()
    return {"image_size": config.data.image_size, **{name: tree[name] for name in ("model", "perturbation", "train")}}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
