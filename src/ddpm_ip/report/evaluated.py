"""What ``ddpm-ip evaluate`` left of a run's samples, and the images that ``ddpm-ip table --keep_images`` kept.

Evaluations are looked for in the folder of the run, and next to it, where samples often are. Those next to it belong to
the run if they are of its weights, by their SHA-256.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ddpm_ip.errors import UserError
from ddpm_ip.files import read_json, read_rows
from ddpm_ip.plain import UNREADABLE
from ddpm_ip.report.reading import LEFT_OUT, PROVENANCE, RESULTS, Problems
from ddpm_ip.run.record import Record, records

EVALUATION = "evaluation.json"  # in a folder of samples, or at the end of a name
MARK = "sampling.json"  # in a folder of samples
KEPT = "table/*/images-*"
MANIFESTS = ("ckpt/*/manifest.json", "snapshots/*/manifest.json", "best/*/manifest.json")
AVERAGE = r"ema(_\d+)?\.safetensors"
NO_SAMPLES = {"ckpt", "best", "snapshots", "tensorboard"}
MOST_STRIPS = 40  # folders of samples that are looked at for strips
MOST_ENTRIES, MOST_FILES = 20_000, 500  # of folders, that are looked at for one run
LARGEST = 16_000_000  # bytes of a list of evaluations


@dataclass(frozen=True)
class Evaluated:
    """What was found.

    Args:
        records: the numbers; ``grid`` names the folder of their images, if it is a key of ``folders``.
        folders: of samples, by the name that the report gives them.
        files: that the numbers are from.
    """

    records: tuple[Record, ...]
    folders: dict[str, Path]
    files: tuple[Path, ...]


def find_evaluations(folder: Path, known: Collection[str | None], problems: Problems) -> Evaluated:
    """The evaluations of a run's samples.

    Args:
        folder: of the run.
        known: SHA-256 of weights that are the run's.
        problems: told of files in the folder that are damaged; not of files next to it.
    """
    weights = {*known, *checkpoints_of(folder)} - {None}
    inside = [(path, True) for path in _candidates(folder, 4)]
    beside = [(path, False) for path in _candidates(folder.parent, 3, skip=folder)]
    numbers: list[Record] = []
    folders: dict[str, Path] = {}
    files = []
    for path, own in [*inside, *beside][:MOST_FILES]:
        name = os.path.relpath(path, folder)
        every: list[Record] = problems.instead([], name, _read, path, own)
        found = [record for record in every if record.weights in weights or (own and record.weights is None)]
        if found:
            files.append(path)
            home = os.path.dirname(name)
            if path.name == EVALUATION and (path.parent / MARK).is_file():
                folders[home] = path.parent
            numbers += [replace(_named(record, home), grid=home if home in folders else None) for record in found]
    return Evaluated(tuple(numbers), folders, tuple(files))


def kept_images(folder: Path) -> list[tuple[str, int]]:
    """Folders of images that a table kept, relative to the run's, and how many images are in each."""
    kept = [(str(path.relative_to(folder)), len(sample_files(path))) for path in sorted(folder.glob(KEPT))]
    return [(name, count) for name, count in kept if count]


def sample_files(folder: Path) -> list[Path]:
    """The images of a folder of samples, by index."""
    return sorted(path for path in folder.glob("*.png") if re.fullmatch(r"\d{6,}", path.stem))


def _read(path: Path, own: bool) -> list[Record]:
    """The numbers of a list of evaluations; none of a file that is something else.

    Raises:
        UserError: it is damaged, and is the run's own.
    """
    try:
        if path.lstat().st_size > LARGEST:
            return []
        rows = read_rows(path, {"values": dict, "protocol": dict}, advice=LEFT_OUT)
        return [record for i, row in enumerate(rows, 1) for record in records(row, f"{path}, evaluation {i}")]
    except (UserError, *UNREADABLE):
        if own and path.name.endswith(EVALUATION):
            raise
        return []


def _named(record: Record, home: str) -> Record:
    """Of images that nobody knows the sampling of, where they are is what tells them apart."""
    if record.row and record.steps is not None:
        return record
    name = Path(record.samples_path).name if record.samples_path else home or "unknown images"
    return replace(record, sampling={**record.sampling, "sampler": {"name": f"images in {name}"}, "clip": "rederive"})


def checkpoints_of(folder: Path) -> dict[str, str]:
    """The files of the averaged weights of the checkpoints that are there, relative to the run, by their SHA-256."""
    found: dict[str, str] = {}
    for pattern in MANIFESTS:
        for path in sorted(folder.glob(pattern)):
            try:
                files = read_json(path)
                hashes = {str(files[name]["sha256"]): name for name in files if re.fullmatch(AVERAGE, name)}
            except (UserError, *UNREADABLE):  # sampling says what is wrong with it
                continue
            home = f"{path.parent.parent.name}/{path.parent.name}"
            found |= {digest: f"{home}/{name}" for digest, name in hashes.items()}
    return found


def strips_of(folder: Path) -> list[Path]:
    """Folders in a run whose pictures show how images came about, from noise on."""
    found = []
    for path in [*sorted(folder.glob(f"*/{MARK}")), *sorted(folder.glob(f"*/*/{MARK}"))][:MOST_STRIPS]:
        try:
            known = read_json(path) if path.parent.resolve().is_relative_to(folder) else {}
        except (UserError, *UNREADABLE):  # sampling says what is wrong with it
            continue
        found += [path.parent] if known.get("mode") in ("denoise", "progressive") else []
    return found


def _candidates(folder: Path, depth: int, skip: Path | None = None) -> Sequence[Path]:
    """Files that may hold evaluations: ``evaluation.json`` and the like at any depth, other JSON files at the top."""
    found, level, left = [], [folder], MOST_ENTRIES
    for below in range(depth):
        deeper: list[Path] = []
        for home in level:
            try:
                with os.scandir(home) as listing:
                    entries = sorted(islice(listing, left), key=lambda entry: entry.name)
            except OSError:
                continue
            left -= len(entries)
            for entry in entries:
                path = home / entry.name
                if entry.is_dir(follow_symlinks=False):
                    deeper += [path] if entry.name not in NO_SAMPLES and path != skip else []
                elif entry.name.endswith(EVALUATION) or (below == 0 and _may_be(entry.name)):
                    found.append(path)
        level = deeper
    return found


def _may_be(name: str) -> bool:
    return name.endswith(".json") and name not in (RESULTS, PROVENANCE, MARK)
