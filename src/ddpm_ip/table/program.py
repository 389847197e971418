"""The program ``table``: a run sampled and measured under every variance, number of steps and seed, as papers print it.

    EXP_DIR/table/PROTOCOL/protocol.json     what all numbers beside it have in common; PROTOCOL is its hash
    EXP_DIR/table/PROTOCOL/cell-....json     one number of steps, variance and seed; appears whole
    EXP_DIR/table/PROTOCOL/table.{txt,...}   the table of all these cells, written anew after every one
    EXP_DIR/table/table.{txt,md,csv,json}    that of the newest call, of what it asked for

Images go from the sampler into the features, and are on no disk unless that is asked for. A call that was ended goes on
with the cells that are missing. Whatever changes a number but is no row or column of the table (the weights, the number
of images, the reference, ...) is part of the protocol, so that numbers of two protocols never meet.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from accelerate import Accelerator

from ddpm_ip.config import Config
from ddpm_ip.data import DataConfig, ImageSet
from ddpm_ip.engine import start_engine, why_not_fast
from ddpm_ip.errors import ConfigError, OutOfMemory, UserError
from ddpm_ip.evaluate.evaluate import Evaluation, check, chosen, evaluate
from ddpm_ip.evaluate.features import Extractor, find_extractor
from ddpm_ip.images import PICTURES, UInt8
from ddpm_ip.perturbation import InputPerturbation
from ddpm_ip.run.checkpoint import find
from ddpm_ip.run.log import clock, setup
from ddpm_ip.run.weights import read_weights
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sample.program import SampleOptions, default_block, make_generator, sample
from ddpm_ip.sample.store import sample_files
from ddpm_ip.sampler import VarType
from ddpm_ip.schedule import RespaceType, respace
from ddpm_ip.table.layout import Grid, as_csv, as_markdown, as_text, lay_out

log = logging.getLogger("ddpm_ip.table")

STEPS = (1000, 100, 50, 10)  # of the published tables
METRICS: dict[str, Sequence[str]] = {
    "inception": ("fid", "isc")
}  # of an extractor where nobody says; of any other the distance alone
LOG_SECONDS = 10.0
PLACE = (
    "var_type",
    "steps",
    "seed",
    "samples",
    "samples_path",
    "line",
)  # of an evaluation's protocol; what follows from the cell
T = TypeVar("T")


@dataclass(frozen=True)
class TableOptions:
    """What to measure.

    Args:
        variances: rows; None for both fixed ones, or for the learned one of a model that has it.
        steps: columns; None for those of :data:`STEPS` that the model has, and all of its steps.
        n_samples: images a cell.
        seeds: of the sampling; with several, a cell is their mean and standard deviation.
        extractor: of the features, a name that :func:`ddpm_ip.evaluate.features.find_extractor` knows.
        metrics: None for the usual ones of the extractor.
        batch_size: images that go through the network together; None for that of the cells that are there, else for
            what the memory holds.
        respace_type: which times are visited.
        keep_images: also writes every image, to ``EXP_DIR/table/PROTOCOL/images-...``.
    """

    variances: Sequence[str] | None = None
    steps: Sequence[int] | None = None
    n_samples: int = 50_000
    seeds: Sequence[int] = (0,)
    extractor: str = "inception"
    metrics: Sequence[str] | None = None
    batch_size: int | None = None
    respace_type: RespaceType = "uniform-linspace"
    keep_images: bool = False

    def cells(self, config: Config) -> list[SampleOptions]:
        """How the images of each cell are made, in the order of the table.

        Raises:
            ConfigError: the model has no such variance or number of steps, or something is asked for twice.
        """
        total, learned = config.diffusion.total_steps, config.diffusion.learned_variance
        known = [v for v in get_args(VarType) if learned or v != "learned_range"]
        variances = self.variances or (["learned_range"] if learned else known)
        steps = self.steps or sorted({total, *(k for k in STEPS if k < total)}, reverse=True)
        for name, values in (("variance", variances), ("steps", steps), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"--{name} must name at least one value, and none twice")
        for variance in variances:
            if variance not in known:
                raise ConfigError(f"--variance {variance}: this model has {', '.join(known)}")
        for count in steps:
            if not 1 <= count <= total:
                raise ConfigError(f"--steps {count}: choose from 1..{total} (diffusion.total_steps)")
            respace(total, count, self.respace_type)
        return [
            SampleOptions(self.n_samples, seed, variance, self.batch_size, self.respace_type, count)  # type: ignore[arg-type]
            for variance in variances
            for count in steps
            for seed in self.seeds
        ]


def table(
    config: Config,
    run: Path,
    options: TableOptions,
    reference: DataConfig | None = None,
    on_cell: Callable[[str], None] = lambda name: None,
) -> Grid:
    """Measures what is missing, and writes the table.

    Args:
        config: of the run.
        run: its folder.
        options: what to measure.
        reference: the real images; None for those that the run was trained on.
        on_cell: called with the name of each cell once it is on the disk; for tests.

    Returns:
        The table, as it stands in ``EXP_DIR/table/table.json``.

    Raises:
        UserError: anything that the user can put right; finished cells stay.
    """
    cells = options.cells(config)
    accelerator = start_engine(config.train.mixed_precision, fast=config.train.fast == "auto")
    setup(None, accelerator.is_main_process)
    extractor = find_extractor(options.extractor, accelerator.device)
    checkpoint = _agreed(find(run).path, accelerator)
    weights, digest = read_weights(checkpoint)
    source = reference or config.data
    with accelerator.main_process_first():
        images = source.open(progress=accelerator.is_main_process)
    if options.keep_images and config.model.in_channels not in PICTURES:
        raise ConfigError(f"--keep_images writes PNG files, which cannot hold {config.model.in_channels} channels")
    metrics = sorted(chosen(METRICS.get(extractor.name, ("fid",)) if options.metrics is None else options.metrics))
    check(images, extractor=extractor, metrics=metrics, n_images=options.n_samples, device=accelerator.device)
    common = {
        **_extractor_facts(extractor),
        "metrics": metrics,
        "weights": digest,
        **_reference_facts(source, images),
        **_sampling_facts(config, options, accelerator),
    }
    block = _agreed(options.batch_size or _block_used(run, common) or default_block(config, accelerator), accelerator)
    sheet = _Sheet.of(run, config, {**common, "block": block}, [replace(cell, batch_size=block) for cell in cells])
    todo = [cell for cell in sheet.cells if sheet.lacks(cell, options.keep_images)]
    accelerator.wait_for_everyone()  # whoever looks later must not find what another has made since
    log.info("%s: %d of %d cells are there", sheet.folder, len(cells) - len(todo), len(cells))
    if accelerator.is_main_process:
        sheet.publish()  # what cannot share a table is told before hours are spent on it
    progress = _Progress(todo)
    for cell in sorted(todo, key=_steps):  # cheap ones first: numbers appear early
        progress.begin()
        try:
            if options.keep_images:
                samples: Path | Iterator[UInt8] = sample(config, checkpoint, sheet.images(cell), cell)
                progress.add(cell, cell.n_samples)
            else:
                samples = _share(make_generator(config, weights, cell, accelerator), cell, accelerator, progress)
            evaluation = evaluate(
                samples, images, extractor=extractor, metrics=metrics, n_images=cell.n_samples,
                device=accelerator.device, about={**sheet.protocol, **_place(cell)},
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(
                f"the GPU has too little memory for {block} images at once. The block is part of the protocol, so a "
                f"smaller one begins a new table: --batch_size {max(1, block // 2)}. Or try --train.mixed_precision "
                "bf16, or a GPU that nothing else is using, which keep the cells that are there"
            ) from error
        if accelerator.is_main_process:
            sheet.put(cell, evaluation)
            log.info("%s: %s", _name(cell), ", ".join(f"{k} {v:.4f}" for k, v in evaluation.values.items()))
            on_cell(_name(cell))
        accelerator.wait_for_everyone()
    grid = sheet.publish() if accelerator.is_main_process else {}
    return _agreed(grid, accelerator)


@dataclass(frozen=True)
class _Sheet:
    """The cells of one protocol, and the table that is made of them."""

    home: Path
    method: str
    protocol: dict[str, Any]
    cells: Sequence[SampleOptions]

    @classmethod
    def of(cls, run: Path, config: Config, protocol: dict[str, Any], cells: Sequence[SampleOptions]) -> _Sheet:
        p = config.perturbation
        method = f"DDPM-IP, gamma {p.gamma:g}" if isinstance(p, InputPerturbation) and p.gamma > 0 else "DDPM"
        return cls(run / "table", method, protocol, cells)

    @property
    def folder(self) -> Path:
        text = json.dumps(self.protocol, sort_keys=True)
        return self.home / hashlib.sha256(text.encode()).hexdigest()[:12]

    def file(self, cell: SampleOptions) -> Path:
        return self.folder / f"cell-{_stem(cell)}.json"

    def images(self, cell: SampleOptions) -> Path:
        """Where the images of a cell lie, if they are kept."""
        return self.folder / f"images-{_stem(cell)}"

    def lacks(self, cell: SampleOptions, with_images: bool) -> bool:
        kept = len(sample_files(self.images(cell))) if with_images else cell.n_samples
        return kept < cell.n_samples or not self.file(cell).exists()

    def put(self, cell: SampleOptions, evaluation: Evaluation) -> None:
        """Keeps a cell, and shows it in the table."""
        _write(self.folder / "protocol.json", _json(self.protocol))
        _write(self.file(cell), _json({**_place(cell), **evaluation.to_dict()}))
        self.publish()

    def publish(self) -> Grid:
        """Writes the table of the cells that are asked for, and beside the cells that of all; none before the first."""
        there = {str(file): _read(file) for file in sorted(self.folder.glob("cell-*.json"))}
        _refuse_mixture(there)
        places = [_place(cell) for cell in self.cells]
        every = sorted(
            ({key: cell[key] for key in places[0]} for cell in there.values()),
            key=lambda p: (p["var_type"], -p["steps"], p["seed"]),
        )
        grid = self._lay_out(places, there)
        if there:
            _write_forms(self.folder, self._lay_out(every, there))
            _write_forms(self.home, grid)
        return grid

    def _lay_out(self, places: Sequence[dict[str, Any]], there: Mapping[str, Mapping[str, Any]]) -> Grid:
        measured = [cell for cell in there.values() if {key: cell[key] for key in places[0]} in places]
        return lay_out(self.method, self.folder.name, self.protocol, places, measured)


def _extractor_facts(extractor: Extractor) -> dict[str, Any]:
    identity = json.loads(json.dumps(dict(extractor.identity())))  # as a file has it
    return {"extractor": extractor.name, "extractor_identity": identity}


def _reference_facts(source: DataConfig, images: ImageSet) -> dict[str, Any]:
    split = getattr(source, "split", None)
    return {
        "data": f"{source.name}-{split}" if split else source.name,  # by which published numbers are found
        # one number for a square, as in tables of version 0.1
        "image_size": images.height if images.height == images.width else [images.height, images.width],
        "reference": images.name,
        "reference_sha256": images.fingerprint,
        "n_reference": len(images),
    }


def _sampling_facts(config: Config, options: TableOptions, accelerator: Accelerator) -> dict[str, Any]:
    return {
        "n_samples": options.n_samples,
        "rounding": "uint8, to nearest",
        "averaged": True,
        "sampler": "ancestral",
        "respace_type": options.respace_type,
        "diffusion": {k: v for k, v in config.to_dict()["diffusion"].items() if k != "var_type"},
        "precision": accelerator.mixed_precision,
        "fast": why_not_fast(config.train.fast, accelerator) is None,
        "device": accelerator.device.type,
    }


def _block_used(run: Path, common: dict[str, Any]) -> int | None:
    """The block of the cells that are there under the same protocol: free memory is not the same every day."""
    for path in sorted((run / "table").glob("*/protocol.json")):
        old = _read(path)
        if {k: v for k, v in old.items() if k != "block"} == common:
            return int(old["block"])
    return None


def _share(generator: Generator, cell: SampleOptions, accelerator: Accelerator, progress: _Progress) -> Iterator[UInt8]:
    """The images that fall to this process: of P processes, process p makes the blocks p, p + P, p + 2P, ..."""
    for block in range(accelerator.process_index, -(-cell.n_samples // generator.block), accelerator.num_processes):
        images = generator.images(block)[: cell.n_samples - block * generator.block]
        progress.add(cell, len(images) * accelerator.num_processes)
        yield images


class _Progress:
    """Tells of rate and time left; what an image costs is its number of steps."""

    def __init__(self, cells: Sequence[SampleOptions]) -> None:
        self._left = sum(cell.n_samples * _steps(cell) for cell in cells)
        self._done, self._start, self._told = 0, time.monotonic(), 0.0
        self.begin()

    def begin(self) -> None:
        """A new cell."""
        self._images, self._begun = 0, time.monotonic()

    def add(self, cell: SampleOptions, images: int) -> None:
        """So many images more, on all processes together."""
        images = min(images, cell.n_samples - self._images)
        self._images += images
        self._done += images * _steps(cell)
        now = time.monotonic()
        if now - self._told < LOG_SECONDS:
            return
        self._told = now
        rate, pace = self._images / (now - self._begun), self._done / (now - self._start)
        log.info(
            "%s: %d/%d images  %.1f images/s  ETA of the table %s",
            _name(cell), self._images, cell.n_samples, rate, clock((self._left - self._done) / pace),
        )  # fmt: skip


def _refuse_mixture(measured: Mapping[str, Mapping[str, Any]]) -> None:
    """All cells must have been measured in the same way, also as far as only the evaluation knows it.

    Raises:
        ConfigError: they were not; names the files.
    """
    kinds: dict[str, list[str]] = {}
    for file, cell in measured.items():
        kinds.setdefault(json.dumps(_without_place(cell["protocol"]), sort_keys=True), []).append(file)
    if len(kinds) > 1:
        *_, fewest = sorted(kinds.values(), key=len, reverse=True)
        raise ConfigError(
            f"{', '.join(fewest)}: measured otherwise than the rest (by another version of the "
            "evaluation, or of its extractor), so they cannot share a table. Remove one kind, and the next call "
            "measures it anew"
        )


def _without_place(protocol: Any) -> Any:
    """A protocol, nested or not, without what may differ between the cells of a table."""
    if not isinstance(protocol, dict):
        return protocol
    return {k: _without_place(v) for k, v in protocol.items() if k not in PLACE}


def _steps(cell: SampleOptions) -> int:
    assert cell.respace_steps is not None
    return cell.respace_steps


def _place(cell: SampleOptions) -> dict[str, Any]:
    """Where a cell stands in the table."""
    return {"var_type": cell.var_type, "steps": cell.respace_steps, "seed": cell.seed}


def _stem(cell: SampleOptions) -> str:
    return f"{cell.var_type}-{cell.respace_steps}-seed{cell.seed}"


def _name(cell: SampleOptions) -> str:
    return f"{cell.var_type}, {cell.respace_steps} steps, seed {cell.seed}"


def _agreed(value: T, accelerator: Accelerator) -> T:
    """The main process's value, on every process."""
    box = [value]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(box)
    return box[0]


def _write_forms(folder: Path, grid: Grid) -> None:
    forms = {"txt": as_text, "md": as_markdown, "csv": as_csv, "json": _json}
    for suffix, form in forms.items():
        _write(folder / f"table.{suffix}", form(grid))


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it, and the next call makes it anew") from None


def _write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}. Finished cells stay") from error
