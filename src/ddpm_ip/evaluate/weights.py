"""The evaluator's weights: which file, where it comes from, where it is looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that is never fetched unasked.

    Args:
        name: of the file.
        sha256: its SHA-256, hexadecimal.
        url: where it comes from.
    """

    name: str
    sha256: str
    url: str


INCEPTION = WeightsFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)


def weights_folders() -> list[Path]:
    """Where weights are looked for, in order: ``$DDPM_IP_WEIGHTS``, then ``~/.cache/ddpm-ip/weights``."""
    chosen = os.environ.get("DDPM_IP_WEIGHTS")
    return [*([Path(chosen).expanduser()] if chosen else []), Path("~/.cache/ddpm-ip/weights").expanduser()]


def find_weights(file: WeightsFile) -> Path | None:
    """The file, wherever it lies first; its hash is not looked at here."""
    return next((path for folder in weights_folders() if (path := folder / file.name).is_file()), None)
