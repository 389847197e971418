"""The program ``evaluate``: samples on the disk, a reference by name, numbers to the terminal and to a JSON file."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ddpm_ip import presets
from ddpm_ip.config import from_dict, load
from ddpm_ip.data import Cifar10, DataConfig, Digits, Folder, Mnist, Npz, Parquet
from ddpm_ip.data.arrays import read_arrays
from ddpm_ip.engine import in_turns, start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.evaluate import Evaluator, Reference
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.images import in_its_own_words, is_jpeg, is_parquet, open_samples, refuse_absent
from ddpm_ip.evaluate.statistics import StatisticsFile, check_use, holds_statistics
from ddpm_ip.files import read_rows, refuse_special, write_rows
from ddpm_ip.metric import chosen, usual
from ddpm_ip.output import say
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.identity import identity
from ddpm_ip.run.log import setup
from ddpm_ip.run.record import Evaluation, identities
from ddpm_ip.turns import alone

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
        n_samples: take the first that many images; None for all.
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
    reference = find_reference(options.reference, options.reference_root, source.shape)
    if isinstance(reference, StatisticsFile):
        check_use(reference.path, options.extractor, metrics)
    extractor = find_extractor(options.extractor, accelerator.device)
    evaluator = Evaluator(extractor, metrics, accelerator.device, options.batch_size)
    evaluation = evaluator.evaluate(source, _open(reference, options.reference, accelerator), options.n_samples)
    if jpeg := _jpeg(reference):
        text = f"the reference holds JPEG images, such as {jpeg}: distances to them are not comparable with others"
        evaluation = dataclasses.replace(evaluation, warnings=[*evaluation.warnings, text])
    if accelerator.is_main_process:
        keep(out, evaluation)
        say(evaluation.text())
        log.info("written to %s", out)
    accelerator.wait_for_everyone()
    return evaluation


def find_reference(text: str, root: str | None, shape: tuple[int, int, int] | None) -> DataConfig | StatisticsFile:
    """The source of reference images that a name or a path means.

    Args:
        text: ``cifar10-train``, ``cifar10-test``, ``mnist-train``, ``mnist-test``, ``digits``; a folder of images, an
            ``.npz`` or ``.npy`` file, Parquet; statistics (:mod:`ddpm_ip.evaluate.statistics`); the folder of a run,
            for its training images; or a configuration (``.yaml``, or the name of a preset), whose data section
            counts.
        root: where the data of a name lie, if not at the usual place.
        shape: (C, H, W) of the samples: images from files are brought to this size, and to four channels if C is 4.

    Raises:
        ConfigError: it means nothing.
        DataError: a file is damaged.
    """
    if text in NAMED:
        found = NAMED[text]
        return found if root is None or isinstance(found, Digits) else dataclasses.replace(found, root=root)
    path = Path(os.path.expanduser(text))  # which leaves the home of nobody as it is
    if _is_configuration(text):
        return load(path, {}).data
    if not text or not os.path.exists(path):
        raise ConfigError(
            f"--reference {text}: neither a name ({', '.join(NAMED)}) nor a folder, an .npz, Parquet, a .yaml file, or "
            "a preset"
        )
    if RunFolder(path).is_one:
        own = identity(path)
        return from_dict(own.config, f"the configuration in {own.origin}").data
    with in_its_own_words(_instead_of_keys(text, "npz")):
        refuse_absent(path)
        if holds_statistics(path):
            return StatisticsFile(path)
        if path.suffix in (".npz", ".npy"):
            _, _, height, width = read_arrays(path)[0].shape
            return Npz(root=str(path), image_size=(height, width))
    if path.is_file() and path.suffix in (".pt", ".pth", ".pkl"):
        raise ConfigError(
            f"--reference {text}: files of this kind may run code and are not read. If it holds statistics, save them "
            "as np.savez(path, mu=mu, sigma=sigma)"
        )
    if shape is None:
        raise ConfigError(f"--reference {text}: the size of the samples is not known before they are made")
    kind = Parquet if path.is_file() or is_parquet(path) else Folder
    return kind(root=str(path), image_size=shape[1:], mode="rgba" if shape[0] == 4 else "auto")


def reference_images(text: str | None, shape: tuple[int, int, int]) -> DataConfig | None:
    """The source of real images that ``--reference`` of a command on a run means; None for those of its training.

    Args:
        text, shape: as of :func:`find_reference`; None if nothing is given.

    Raises:
        ConfigError: it means nothing, or statistics, which show no image.
        DataError: a file is damaged.
    """
    found = None if text is None else find_reference(text, None, shape)
    if isinstance(found, StatisticsFile):
        raise ConfigError(f"--reference {text} holds statistics, and here images are needed: give those themselves")
    return found


def _is_configuration(text: str) -> bool:
    """Whether a reference is a YAML file, or a preset where nothing else has its name."""
    return text.endswith((".yaml", ".yml")) or (text in presets.names() and not os.path.exists(text))


def _instead_of_keys(text: str, name: str) -> str:
    """How to do for a reference what a message about its data advises to do with a key."""
    if text in NAMED:
        return f"With --reference {text}, --reference_root FOLDER says where the data are"
    if RunFolder(Path(text)).is_one:
        return f"--reference {text} means the images of that run; name others, or a .yaml file with a section data"
    data = f"{{name: {name}, root: {text}, image_size: PIXELS, KEY: VALUE}}"
    return f'--reference takes a .yaml file, too, in which the keys data.KEY can be set: "data: {data}"'


def _open(reference: DataConfig | StatisticsFile, text: str, accelerator: Accelerator) -> Reference:
    keys = _is_configuration(text)  # who wrote it knows them
    told = nullcontext() if keys else in_its_own_words(_instead_of_keys(text, getattr(reference, "name", "npz")))
    with told:
        return in_turns(accelerator, lambda: reference.open(progress=accelerator.is_main_process))


def _jpeg(reference: DataConfig | StatisticsFile) -> str | None:
    """An image that is a JPEG, of ten that are looked at."""
    if not isinstance(reference, (Folder, Parquet)):
        return None
    items = islice(reference.listing().items(), 0, 10_000, 1000)
    return next((item.where for item in items if is_jpeg(item)), None)


def default_out(samples: Path) -> Path:
    """``evaluation.json`` in a folder of samples; next to a file, ``NAME.evaluation.json``."""
    return samples / "evaluation.json" if samples.is_dir() else samples.with_name(f"{samples.stem}.evaluation.json")


def keep(path: Path, evaluation: Evaluation) -> None:
    """Adds an evaluation to a JSON list, in place of those all of whose numbers it measures again.

    Processes that add to one file at once lose nothing.

    Raises:
        UserError: the file is something else, and is not touched.
    """
    new = evaluation.to_dict()
    with suppress(OSError):  # writing says what is wrong
        path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):  # another process may be adding to it, too
        rows = [row for row in _read(path) if not identities(row) <= identities(new)]
        write_rows(path, [*rows, new], advice="Choose another --out")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return read_rows(path, {"protocol": dict}, advice="Evaluations are added to it: remove it, or choose another --out")
