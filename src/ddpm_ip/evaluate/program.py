"""The program ``evaluate``: samples on the disk, a reference by name, numbers to the terminal and to a JSON file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ddpm_ip.config import load
from ddpm_ip.data import Cifar10, DataConfig, Digits, Folder, ImageSet, Mnist, Npz, Parquet
from ddpm_ip.data.arrays import read_arrays
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.images import is_jpeg, open_samples
from ddpm_ip.files import read_rows, refuse_special, write_rows
from ddpm_ip.metric import chosen, usual
from ddpm_ip.output import say
from ddpm_ip.run.log import setup
from ddpm_ip.run.record import Evaluation, identities

log = logging.getLogger("ddpm_ip.evaluate")

NAMED: dict[str, Cifar10 | Mnist | Digits] = {
    "cifar10-train": Cifar10(split="train"),
    "cifar10-test": Cifar10(split="test"),
    "mnist-train": Mnist(split="train"),
    "mnist-test": Mnist(split="test"),
    "digits": Digits(),
}


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure.

    Args:
        reference: see :func:`find_reference`.
        reference_root: where the data of a reference that is a name lie.
        metrics: names; None for those of :func:`ddpm_ip.metric.usual`.
        extractor: see :func:`ddpm_ip.evaluate.features.find_extractor`.
        out: the JSON file; None for :func:`default_out`.
        batch_size: images at once; None for 256 on a GPU and 32 on a CPU.
        n_samples: the first so many images; None for all.
    """

    reference: str
    reference_root: str | None = None
    metrics: Sequence[str] | None = None
    extractor: str = "inception"
    out: Path | None = None
    batch_size: int | None = None
    n_samples: int | None = None


def evaluate_files(samples: Path, options: EvaluateOptions) -> Evaluation:
    """Measures samples, prints the numbers, and adds them to the JSON file.

    Raises:
        UserError: anything that the user can put right.
    """
    accelerator = start_engine("no")
    setup(None, accelerator.is_main_process)
    metrics = chosen(usual(options.extractor) if options.metrics is None else options.metrics)
    out = options.out or default_out(samples)
    refuse_special(out)  # now rather than after the work
    _read(out)
    source = open_samples(samples)
    extractor = find_extractor(options.extractor, accelerator.device)
    reference = find_reference(options.reference, options.reference_root, source.shape)
    evaluator = Evaluator(extractor, metrics, accelerator.device, options.batch_size)
    evaluation = evaluator.evaluate(source, _open(reference, accelerator), options.n_samples)
    if jpeg := _jpeg(reference):
        text = f"the reference holds JPEG images, such as {jpeg}: distances to them are not comparable with others"
        evaluation = dataclasses.replace(evaluation, warnings=[*evaluation.warnings, text])
    if accelerator.is_main_process:
        keep(out, evaluation)
        say(evaluation.text())
        log.info("written to %s", out)
    accelerator.wait_for_everyone()
    return evaluation


def find_reference(text: str, root: str | None, shape: tuple[int, int, int] | None) -> DataConfig:
    """The source of reference images that a name or a path means.

    Args:
        text: ``cifar10-train``, ``cifar10-test``, ``mnist-train``, ``mnist-test``, ``digits``; a folder of images, an
            ``.npz`` or ``.npy`` file, Parquet; or a configuration (``.yaml``), whose data section counts.
        root: where the data of a name lie, if not at the usual place.
        shape: (C, H, W) of the samples: images from files are brought to this size, and to four channels if C is 4.

    Raises:
        ConfigError: it means nothing.
        DataError: a file is damaged.
    """
    path = Path(text).expanduser()
    if text in NAMED:
        found = NAMED[text]
        return found if root is None or isinstance(found, Digits) else dataclasses.replace(found, root=root)
    if path.suffix in (".yaml", ".yml"):
        return load(path, {}).data
    if not path.exists():
        raise ConfigError(
            f"--reference {text}: neither a name ({', '.join(NAMED)}) nor a folder, an .npz, Parquet, or a .yaml file"
        )
    if path.suffix in (".npz", ".npy"):
        _, _, height, width = read_arrays(path)[0].shape
        return Npz(root=str(path), image_size=(height, width))
    if shape is None:
        raise ConfigError(f"--reference {text}: the size of the samples is not known before they are made")
    kind = Parquet if path.is_file() or any(path.glob("*.parquet")) else Folder
    return kind(root=str(path), image_size=shape[1:], mode="rgba" if shape[0] == 4 else "auto")


def _open(reference: DataConfig, accelerator: Accelerator) -> ImageSet:
    with accelerator.main_process_first():  # the others find what it downloaded or decoded
        return reference.open(progress=accelerator.is_main_process)


def _jpeg(reference: DataConfig) -> str | None:
    """An image that is a JPEG, of ten that are looked at."""
    if not isinstance(reference, (Folder, Parquet)):
        return None
    items = islice(reference.listing().items(), 0, 10_000, 1000)
    return next((item.where for item in items if is_jpeg(item)), None)


def default_out(samples: Path) -> Path:
    """``evaluation.json`` in a folder of samples; beside a file, ``NAME.evaluation.json``."""
    return samples / "evaluation.json" if samples.is_dir() else samples.with_name(f"{samples.stem}.evaluation.json")


def keep(path: Path, evaluation: Evaluation) -> None:
    """Adds an evaluation to a JSON list, in place of those all of whose numbers it measures again.

    Raises:
        UserError: the file is something else, and is not touched.
    """
    new = evaluation.to_dict()
    rows = [row for row in _read(path) if not identities(row) <= identities(new)]
    write_rows(path, [*rows, new], advice="Choose another --out")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return read_rows(path, {"protocol": dict}, advice="Evaluations are added to it: remove it, or choose another --out")
