"""The program ``table``: a run sampled and measured under every sampler, number of steps and seed, as papers print it.

Rows are samplers (for the ancestral one its variances) with their corrections and spacings, columns are numbers of
steps, or of network evaluations (:mod:`ddpm_ip.table.rows`). Images go from the sampler into the features, and are on
no disk unless that is asked for. A call that was ended continues with the cells that are missing
(:mod:`ddpm_ip.table.sheet` says where they are kept).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ddpm_ip.config import Config
from ddpm_ip.data import DataConfig, ImageSet
from ddpm_ip.engine import from_main, in_turns, why_not_fast
from ddpm_ip.errors import ConfigError
from ddpm_ip.estimate import PICTURED, Disk, disk_of_table, line, size
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import Extractor, find_extractor, identity_of
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.images import PICTURES, UInt8, by_class, grid
from ddpm_ip.memory import enough_memory
from ddpm_ip.metric import chosen, fixed, usual
from ddpm_ip.perturbation import label
from ddpm_ip.run.identity import method
from ddpm_ip.run.log import clock, setup
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.row import ROW
from ddpm_ip.run.weights import find_weights, place
from ddpm_ip.sample.filled import filled, optimised_label, together
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.program import SampleOptions, default_block, load_model, sampling_engine, write_samples
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Computed, Sampling
from ddpm_ip.sampler.spacing import OPTIMISED, shown
from ddpm_ip.settings import KINDS, check_as_trained
from ddpm_ip.table.layout import Grid
from ddpm_ip.table.rows import Slot, TableOptions
from ddpm_ip.table.sheet import Sheet, block_used

log = logging.getLogger("ddpm_ip.table")

LOG_SECONDS = 10.0


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
    options.slots(config)  # what cannot be with any weights is told before anything is loaded
    accelerator = sampling_engine(config, options.sampling)
    setup(None, accelerator.is_main_process)
    extractor = find_extractor(options.extractor, accelerator.device)
    weights = find_weights(from_main(accelerator, place(run, options.ema)), options.ema)
    own = weights.trained(run)
    check_as_trained(config, own.config, own.origin, of=KINDS["method"])
    source = reference or config.data
    images = in_turns(accelerator, lambda: source.open(progress=accelerator.is_main_process))
    evaluator = _evaluator(config, options, extractor, images, accelerator.device)
    with enough_memory(lambda: _too_large(config, options.sampling.block or 64)):
        model = load_model(config, weights.tensors, accelerator, weights.origin)
        store = Measured.of(weights.sha256, Path(weights.origin))
        slots = options.slots(config, lambda sampling: _filled(sampling, config, store, model))
    common = {
        **_extractor_facts(extractor),
        "metrics": sorted(evaluator.metrics),
        "n_samples": options.n_samples,
        "rounding": "uint8, to nearest",
        **weights.facts(),
        **_reference_facts(source, images),
        **_sampling_facts(config, slots, accelerator),
    }  # and the spacing, of each cell
    spacings = dict.fromkeys(slot.spacing for slot in slots if slot.why_not is None)
    used = (block_used(run / "table", {**common, "spacing": spacing}) for spacing in spacings)
    wanted = options.sampling.block or next(filter(None, used), None) or default_block(config, accelerator)
    block = from_main(accelerator, wanted)
    slots = [slot.with_block(block) for slot in slots]
    name = method(label(config.perturbation), own.history, own.imported, own.step)
    sheet = Sheet(run / "table", name, {**common, "block": block}, slots, options.columns_are)
    measured = _Measured(images, evaluator, options.keep_images)
    with enough_memory(lambda: _too_large(config, block)):
        return _measure(sheet, measured, model, on_cell)


def check(config: Config, options: TableOptions, reference: DataConfig | None = None, *, trained: bool = False) -> int:
    """Tells what would keep the table of a model from being made, also before the model is trained.

    Args:
        config, options, reference: as of :func:`table`.
        trained: whether there are weights, of which something may have been measured.

    Returns:
        The number of cells.

    Raises:
        UserError: a row or a column cannot be, or the real images, or what the features need, is not there.
    """
    slots = options.slots(config)
    for row in options.rows or [options.sampling]:
        needs = "times" if row.spacing == OPTIMISED else "calibrate" if Auto() in row.corrections else None
        if needs is not None and not trained:
            raise ConfigError(
                f"a row with {'optimised times' if needs == 'times' else 'the correction auto'} needs what `ddpm-ip "
                f"{needs}` finds of trained weights: make the table without it first, then that, then ask for the row"
            )
    device = torch.device("cpu")
    images = (reference or config.data).open(progress=True)
    _evaluator(config, options, find_extractor(options.extractor, device), images, device)
    return sum(slot.why_not is None for slot in slots)


def _evaluator(
    config: Config, options: TableOptions, extractor: Extractor, images: ImageSet, device: torch.device
) -> Evaluator:
    """What measures the cells, once it is known that it can."""
    if options.keep_images and config.model.in_channels not in PICTURES:
        raise ConfigError(f"--keep_images writes PNG files, which cannot hold {config.model.in_channels} channels")
    metrics = sorted(chosen(usual(extractor.name) if options.metrics is None else options.metrics))
    evaluator = Evaluator(extractor, metrics, device)
    evaluator.check(images, options.n_samples)
    return evaluator


def _filled(sampling: Sampling, config: Config, store: Measured, model: Model) -> tuple[Sampling, str]:
    """With what it leaves to the weights; and its spacing, for optimised times with how they were found."""
    spacing = shown(sampling.spacing)
    if spacing == OPTIMISED:
        schedule = config.diffusion.schedule
        spacing = together(model.engine, lambda: optimised_label([sampling.steps], store, schedule))
    return filled(sampling, config, store, model), spacing


def _too_large(config: Config, block: int) -> str:
    _, height, width = config.shape
    return (
        f"there is too little memory to measure {block} images of {height} x {width} px at once. The block is part of "
        f"the protocol, so a smaller one begins a new table: --batch_size {max(1, block // 2)}. Or try "
        "--train.mixed_precision bf16, or a device that nothing else is using, which keep the cells that are there"
    )


@dataclass(frozen=True)
class _Measured:
    """What all cells are measured with."""

    images: ImageSet
    evaluator: Evaluator
    keep_images: bool


def _measure(sheet: Sheet, with_: _Measured, model: Model, on_cell: Callable[[str], None]) -> Grid:
    """Measures the cells that are missing, cheap ones first, so that numbers appear early."""
    accelerator, weights = model.engine, {key: sheet.protocol[key] for key in ("weights", "averaged")}
    todo = [cell for cell in sheet.cells if sheet.lacks(cell, with_.keep_images)]
    accelerator.wait_for_everyone()  # whoever looks later must not find what another has made since
    log.info(
        "%s: %d of %d cells are there",
        ", ".join(map(str, sheet.folders.values())),
        len(sheet.cells) - len(todo),
        len(sheet.cells),
    )
    if accelerator.is_main_process:
        sheet.publish()  # what cannot share a table is told before hours are spent on it
    costs = {cell: cell.sampling.evaluations(cell.sampling.plan(model.denoiser.schedule)) for cell in todo}
    _tell_costs(sheet, costs, model, with_.keep_images)
    progress = _Progress({cell: (sheet.names[cell], cost) for cell, cost in costs.items()}, accelerator.num_processes)
    for cell in sorted(todo, key=costs.__getitem__):
        progress.begin()
        generator = model.generator(cell.sampling)
        first: list[UInt8] = []
        if with_.keep_images:
            samples: Path | Iterator[UInt8] = sheet.images(cell)
            write_samples(generator, weights, sheet.images(cell), cell)
            first.extend([generator.images(0)] if accelerator.is_main_process else [])
            progress.add(cell, cell.n_samples // accelerator.num_processes)
        else:
            samples = _told(generator.mine(cell.n_samples), cell, progress, first)
        source = open_samples(samples, {**weights, **generator.facts()})
        evaluation = with_.evaluator.evaluate(source, with_.images, cell.n_samples)
        if accelerator.is_main_process:
            sheet.put(cell, evaluation, grid(*by_class(first[0][:PICTURED], generator.period)))
            log.info("%s: %s", sheet.names[cell], ", ".join(f"{k} {fixed(v, 4)}" for k, v in evaluation.values.items()))
            on_cell(sheet.names[cell])
        accelerator.wait_for_everyone()
    whole = sheet.publish() if accelerator.is_main_process else {}
    return from_main(accelerator, whole)


def _tell_costs(sheet: Sheet, costs: Mapping[SampleOptions, int], model: Model, keep_images: bool) -> None:
    """What the cells that are missing will take; their time is known with the first images."""
    if not costs or not model.engine.is_main_process:
        return
    cell = next(iter(costs))
    block, asked = cell.sampling.block or 1, sum(one.n_samples * cost for one, cost in costs.items())
    what = "all images" if keep_images else "a picture of each cell"
    disk = Disk(sheet.home, disk_of_table(model.shape, len(costs), cell.n_samples, keep_images), what=what)
    told = f"time told with the first images ({len(costs)} cells, {asked:,} times an image goes through the network)"
    memory = f"memory for {block} images at once up to {size(block * model.bytes_of_image)}"
    log.info("%s", line(told, memory, disk))
    if said := disk.warning("leave out --keep_images, or take fewer of --n_samples"):
        log.warning("%s", said)


def _extractor_facts(extractor: Extractor) -> dict[str, Any]:
    return {"extractor": extractor.name, "extractor_identity": identity_of(extractor)}


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


def _sampling_facts(config: Config, slots: Sequence[Slot], accelerator: Accelerator) -> dict[str, Any]:
    """What the images of all cells have in common, but for the block."""
    sampling = next(slot.cell.sampling for slot in slots if slot.why_not is None)
    fast = why_not_fast(config.train.fast, accelerator) is None
    computed = Computed(accelerator.mixed_precision, fast, accelerator.device.type)
    facts = replace(sampling, block=1).facts(config.to_dict()["diffusion"], computed)
    own = (*ROW, "spacing", "steps", "evaluations", "seed", "block")
    return {key: value for key, value in facts.items() if key not in own}


def _told(blocks: Iterator[UInt8], cell: SampleOptions, progress: _Progress, first: list[UInt8]) -> Iterator[UInt8]:
    """The blocks of this process, each told to the progress; the first is kept for a picture."""
    for images in blocks:
        progress.add(cell, len(images))
        first.extend([] if first else [images])
        yield images


class _Progress:
    """Tells the rate and the time left; what an image costs is its number of network evaluations."""

    def __init__(self, cells: Mapping[SampleOptions, tuple[str, int]], processes: int) -> None:
        self._cells, self._processes = cells, processes
        self._left = sum(cell.n_samples * cost for cell, (_, cost) in cells.items())
        self._done, self._start, self._told = 0, time.monotonic(), 0.0
        self.begin()

    def begin(self) -> None:
        """A new cell."""
        self._images, self._begun = 0, time.monotonic()

    def add(self, cell: SampleOptions, images: int) -> None:
        """So many images more on this process, and about as many on each other."""
        images = min(images * self._processes, cell.n_samples - self._images)
        self._images += images
        name, cost = self._cells[cell]
        self._done += images * cost
        now = time.monotonic()
        if now - self._told < LOG_SECONDS:
            return
        self._told = now
        rate, pace = self._images / (now - self._begun), self._done / (now - self._start)
        log.info(
            "%s: %d/%d images  %.1f images/s  ETA of the table %s",
            name, self._images, cell.n_samples, rate, clock((self._left - self._done) / pace),
        )  # fmt: skip
