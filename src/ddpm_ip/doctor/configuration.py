"""A configuration: its data, and whether they, the network, the average and the evaluation go together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_ip.doctor.findings import Finding
from ddpm_ip.doctor.machine import TORCH_FIDELITY, installed
from ddpm_ip.errors import UserError

if TYPE_CHECKING:
    from ddpm_ip.config import Config
    from ddpm_ip.data import Folder, Parquet
    from ddpm_ip.data.decoded import Item

FORGOTTEN = 0.01  # share of the initial weights in the average that does no harm
LOOKED_AT, OPENED = 2000, 20  # images whose first bytes are read, and those whose mode is looked at
GRAY = ("1", "L", "LA", "I", "I;16", "F")


def check_configuration(path: Path | str | None, overrides: dict[str, Any], run: Path | None) -> Iterable[Finding]:
    """Whether a configuration can be used: its data, its average, its evaluation.

    Args:
        path: a YAML file; None for the settings of the run.
        overrides: of its items, by dotted path.
        run: folder of a run.

    Raises:
        ConfigError: it cannot be read.
    """
    from ddpm_ip.config import from_dict, load
    from ddpm_ip.run.identity import identity

    begins_with_noise = True
    if path is None:
        assert run is not None
        own = identity(run)
        path = own.origin
        config = from_dict(own.config, f"the configuration in {path}", overrides)
        begins_with_noise = own.init_from is None
    else:
        config = load(path, overrides)
    yield Finding("OK", "config", f"{path} can be used")
    yield from _data(config)
    yield from _labels(config)
    yield from _schedule(config)
    if begins_with_noise:
        yield from check_average(config, "train.n_steps", config.train.n_steps)
    yield from _sampling(config)
    yield from _evaluation(config)
    yield from _trackers(config)


def _labels(config: Config) -> Iterable[Finding]:
    """Whether the data have labels for a class-conditional network, and images of all its classes."""
    from ddpm_ip.data.labels import check_labels, without_images

    classes, data = config.classes, config.data
    if classes is None or data.name == "unknown":
        return
    root = getattr(data, "root", None)
    if root is not None and not os.path.exists(os.path.expanduser(root)) and not getattr(data, "download", False):
        return  # that is told of the data
    try:
        found = data.some_labels()
        check_labels(None if found is None else found.numbers, data.name, classes.count)
    except UserError as error:
        yield Finding("problem", "classes", f"{error}; training does not start")
        return
    assert found is not None
    if missing := without_images(found.numbers, classes.count):
        yield Finding("note", "classes", missing, "make no images of those: such a class is only noise to the network")
    else:
        yield Finding("OK", "classes", f"{classes.count} classes, all with images")


def _schedule(config: Config) -> Iterable[Finding]:
    """Whether the noisiest time is noise."""
    from ddpm_ip.schedule import too_little_noise

    text, _, cure = too_little_noise(config.diffusion.schedule).partition(". ")
    if text:
        yield Finding("note", "schedule", text, cure)


def _sampling(config: Config) -> Iterable[Finding]:
    """Whether images can be made as the configuration says; else training refuses to start."""
    from ddpm_ip.evaluate.during import check_sampling

    try:
        check_sampling(config)
    except UserError as error:
        yield Finding("problem", "sampling", f"{error}; training does not start", "change the section sampling")


def _evaluation(config: Config) -> Iterable[Finding]:
    """Whether train.eval has its extractor's weights; without them training refuses to start."""
    from ddpm_ip.evaluate.extractors.weights import DINOV2, INCEPTION, find_weights

    chosen = config.train.eval
    file = {"inception": INCEPTION, **DINOV2}.get(chosen.extractor)
    if chosen.every and file is not None and find_weights(file) is None:
        yield Finding(
            "problem",
            "train.eval",
            f"{file.name} ({file.megabytes:,} MB) is not here, without which training with train.eval.extractor "
            f"{chosen.extractor} does not start",
            f"choose --train.eval.extractor pixels, or fetch it: {file.command()}",
        )
    if chosen.every and file is not None and config.model.in_channels not in (1, 3):
        yield Finding(
            "problem",
            "train.eval",
            f"{chosen.extractor} takes RGB or gray images, not {config.model.in_channels} channels: training does not "
            "start",
            "choose --train.eval.extractor pixels",
        )
    if chosen.every and chosen.extractor == "inception" and installed("torch-fidelity") is None:
        text = "torch-fidelity is not installed, without which training with this extractor does not start"
        yield Finding("problem", "train.eval", text, TORCH_FIDELITY)


def _trackers(config: Config) -> Iterable[Finding]:
    """Whether the trackers that are asked for are installed; else training refuses to start."""
    from ddpm_ip.tracking.trackers import refuse_missing

    try:
        refuse_missing(config.train.trackers)
    except UserError as error:
        text, _, cure = str(error).partition("installed: ")
        yield Finding("problem", "train.trackers", f"{text}installed; training does not start", cure)


def _data(config: Config) -> Iterable[Finding]:
    data = config.data
    root = getattr(data, "root", None)
    place = Path(os.path.expanduser(root)) if root is not None else None
    if data.name == "unknown":
        yield Finding(
            "note",
            "data",
            "nothing says on which images the network was trained",
            "--data.name and --data.root, with --change data to train on; a table takes --reference DATA",
        )
    elif place is None:
        yield Finding("OK", "data", f"{data.name}, in the package")
    elif place.is_dir() and not any(place.iterdir()):
        if getattr(data, "download", False):
            yield Finding("note", "data", f"{data.name}: {place} is empty; the first use fetches it")
        else:
            yield Finding("problem", "data", f"data.root: {place} is empty", "set --data.root to where the images are")
    elif place.exists():
        yield Finding("OK", "data", f"{data.name}, {place} is there (not opened: `ddpm-ip data inspect` does)")
    elif getattr(data, "download", False):
        yield Finding("note", "data", f"{data.name} is not in {place}; the first use fetches it")
    else:
        yield Finding(
            "problem", "data", f"data.root: {place} does not exist", "set --data.root to where the images are"
        )
    yield from _images(config, place)
    yield from _fit(config)


def _fit(config: Config) -> Iterable[Finding]:
    """Whether images and network go together, as far as the configuration says."""
    channels, height, width = config.shape
    try:
        config.model.check(height, width)
    except UserError as error:
        text, _, advice = str(error).partition(": ")
        yield Finding("problem", "data", text, advice)
    mode = getattr(config.data, "mode", "auto")
    given = {"gray": 1, "rgb": 3, "rgba": 4}.get(mode, channels)
    if given != channels:
        yield Finding(
            "problem",
            "data",
            f"data.mode {mode} gives {given} channels, model.in_channels is {channels}",
            f"--model.in_channels {given}, or another data.mode",
        )
    if channels not in (1, 3):
        yield Finding(
            "note",
            "data",
            f"images of {channels} channels: the Inception and DINOv2 do not take them",
            "measure with --extractor pixels, or with one of your own that has gray = True",
        )


def _images(config: Config, place: Path | None) -> Iterable[Finding]:
    """Gray and JPEG images, which make a reference that does not compare with others."""
    from ddpm_ip.data import Folder, Parquet

    data = config.data
    if config.model.in_channels == 1:
        yield Finding(
            "note",
            "data",
            "gray images: the Inception sees them as three equal channels",
            "compare their FID only with FIDs of the same set taken the same way",
        )
    if not isinstance(data, Folder | Parquet) or not place or not place.exists():
        return
    try:
        jpeg, gray = _shares(data)
    except UserError as error:
        yield Finding("problem", "data", str(error), "see `ddpm-ip data inspect`")
        return
    if gray == 1 and config.model.in_channels == 3:
        yield Finding(
            "note",
            "data",
            "the images that were looked at are gray: network and Inception see them as three equal channels",
            "--model.in_channels 1 --data.mode gray; compare their FID only with FIDs of the same set taken so",
        )
    if jpeg:
        yield Finding(
            "note",
            "data",
            f"{jpeg:.0%} of the images are JPEG: its artefacts are in the reference, and move a FID by points",
            "take lossless originals if there are any; never compare with a FID of PNG references",
        )


def _shares(data: Folder | Parquet) -> tuple[float, float]:
    """The shares of JPEG and of gray images among the first of a set, by their bytes; 0 of none."""
    from PIL import Image

    from ddpm_ip.evaluate.images import is_jpeg

    looked_at, jpeg = 0, 0
    gray: list[bool] = []
    for item in islice(_first_images(data), LOOKED_AT):
        looked_at += 1
        jpeg += is_jpeg(item)
        if len(gray) < OPENED:
            try:
                with Image.open(BytesIO(item.source) if isinstance(item.source, bytes) else item.source) as image:
                    gray.append(image.mode in GRAY)
            except Exception:
                continue  # `ddpm-ip data inspect` counts what is no image
    return jpeg / max(looked_at, 1), sum(gray) / max(len(gray), 1)


def _first_images(data: Folder | Parquet) -> Iterator[Item]:
    """In the order of the disk, since listing a large folder takes long."""
    from ddpm_ip.data import Parquet
    from ddpm_ip.data.decoded import Item
    from ddpm_ip.data.folder import walk

    if isinstance(data, Parquet):
        yield from data.listing().items()
    else:
        yield from (Item(path.name, path, None) for path in walk(Path(os.path.expanduser(data.root))))


def check_average(config: Config, name: str, steps: int) -> Iterable[Finding]:
    """Whether the averages have forgotten the initial weights after ``steps``; ``name`` says which steps they are.

    An average of a power function has none of them, ever.
    """
    decays = config.train.ema_decays
    for decay in decays:
        which = "the average" if len(decays) == 1 else f"the average of decay {decay}"
        yield _forgotten(decay, config.train.ema_warmup, which, steps, name)


def _forgotten(decay: float, warmup: bool, which: str, steps: int, name: str) -> Finding:
    from ddpm_ip.ema import remaining

    share = remaining(decay, warmup, steps)
    how = f"{decay} with warm-up, {steps} steps" if warmup else f"{decay}^{steps}"
    text = f"{which} keeps {share:.2g} of the initial weights ({how}, {name})"
    if share <= FORGOTTEN:
        return Finding("OK", "EMA", text)
    needed, fitting = math.ceil(math.log(FORGOTTEN) / math.log(decay)), math.floor(FORGOTTEN ** (1 / steps) * 1e5) / 1e5
    if warmup:
        needed = next(n for n in range(1, needed + 1) if remaining(decay, warmup, n) <= FORGOTTEN)
    return Finding(
        "problem",
        "EMA",
        f"{text}: its samples look undertrained",
        f"train at least {needed} steps, or choose --train.ema_decay {fitting:g} before training",
    )
