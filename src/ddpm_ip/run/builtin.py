"""Weights that come with the package: ``--weights digits``, where nothing of that name is in the current folder.

    ddpm_ip/weights/digits/     a run: config.yaml, provenance.json, metrics.jsonl, and its average in ckpt/

They are only read. What is made from them and kept next to weights (samples, calibrations, tables, ...) goes to
``./digits``, which becomes a copy of the run when something is kept there for the first time, and is an ordinary run
from then on.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from pathlib import Path

from ddpm_ip.errors import ConfigError
from ddpm_ip.files import MB, read_bytes, write_bytes
from ddpm_ip.places import make_folder
from ddpm_ip.plain import reason, remedy, shown

log = logging.getLogger("ddpm_ip.run")

FOLDER = Path(__file__).parents[1] / "weights"
LARGEST = 10 * MB  # bytes of a file


def names() -> list[str]:
    """What the weights are called, sorted."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) if FOLDER.is_dir() else []


def found(path: Path) -> Path:
    """The folder of built-in weights, if a path is their name and nothing is there; else the path."""
    return FOLDER / path.name if str(path) in names() and not os.path.lexists(path) else path


def is_one(path: Path) -> bool:
    """Whether a path is in the folder of built-in weights."""
    return FOLDER in path.absolute().parents


def home(folder: Path) -> Path:
    """Where what is made of the weights of a run is kept: in its folder, and of built-in ones in ``./NAME``."""
    return Path.cwd() / folder.name if folder.parent == FOLDER else folder


def taken(path: Path) -> Path:
    """The folder of a run to write to: of the name of built-in weights their copy, made if need be; else the path.

    Raises:
        ConfigError: the copy cannot be made.
    """
    place = found(path)
    if not is_one(place):
        return path
    ready(home(place))
    return path


def ready(folder: Path) -> None:
    """Makes the copy of built-in weights in whose place a folder is, or lies, if it is not there yet.

    Several processes may do so at once: the copy appears whole, and the first one stays.

    Raises:
        ConfigError: it cannot be made.
    """
    places = [Path.cwd() / name for name in names()]
    folder = folder.absolute()
    for place in places:
        if place in (folder, *folder.parents) and not os.path.lexists(place):
            _copy(FOLDER / place.name, place)
            log.info("what is made of the weights of the package is kept in ./%s, a copy of them", place.name)


def _copy(source: Path, place: Path) -> None:
    make_folder(place.parent, ConfigError)
    partial = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            write_bytes(partial / file.relative_to(source), read_bytes(file, LARGEST), error=ConfigError)
        if not os.path.lexists(place):
            os.rename(partial, place)
    except OSError as error:
        if not place.is_dir():  # which another process made
            raise ConfigError(f"{shown(place)} cannot be made: {reason(error)}. {remedy(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
