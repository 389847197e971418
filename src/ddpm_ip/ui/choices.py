"""What the page lets a browser choose: the weights below one folder, and texts of samplers and corrections.

A browser sends names. A name is looked up among those that were just found, and no path is ever made of it. Links are
not followed: what a run links to may lie anywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ddpm_ip.errors import ConfigError
from ddpm_ip.options import SAMPLERS
from ddpm_ip.places import expanded
from ddpm_ip.plain import quoted, shown
from ddpm_ip.run.checkpoint import steps
from ddpm_ip.run.folder import RunFolder

DEPTH = 4  # folders below the one that was given
MOST = 200  # weights that are listed
FOLDERS = 5_000  # that are looked at for them
PARTS = ("ckpt", "best", "snapshots")  # of a run, whose configuration lies in the folder above

SAMPLER_EXAMPLES = (*SAMPLERS, "ancestral,var_type=fixed_small", "ddim,eta=0.5")
CORRECTION_EXAMPLES = (
    "none",
    "epsilon_scaling,scale=1.01",
    "tsr,k=0.98",
    "ip_emulator,gamma=0.1,undo=true",
    "time_shift,window=30,cutoff=300",
    "dcw,low=0.01",
    "band_gains,x0=1.01",
    "variance_normalisation",
    "dynamic_thresholding",
    "guidance,scale=1.5",
    "epsilon_scaling,scale=1.01+dcw,low=0.01",
    "clip=none",
)


@dataclass(frozen=True)
class Choices:
    """The weights below a folder.

    Args:
        root: the folder; nothing outside it is read.

    Raises:
        ConfigError: there is no such folder, or it is a part of a run.
    """

    root: Path

    def __post_init__(self) -> None:
        root = expanded(self.root)
        if not root.is_dir():
            raise ConfigError(f"{shown(root)} is no folder: give one with runs or files of weights in it")
        root = root.resolve()
        if (root / "manifest.json").exists() or {root.name, root.parent.name} & {*PARTS}:
            raise ConfigError(f"{shown(root)} is a part of a run, which needs the rest of it: give the run's folder")
        object.__setattr__(self, "root", root)

    def names(self) -> list[str]:
        """What may be chosen now: runs (their newest checkpoint), single checkpoints, files of weights."""
        return list(self._found())

    def path(self, name: object) -> Path:
        """The run, checkpoint or file of a name.

        Raises:
            ConfigError: no weights of this name lie below the folder.
        """
        found = self._found()
        if not isinstance(name, str) or name not in found:
            more = "Choose another one" if found else "Train a run there, or start with another folder"
            raise ConfigError(f"there are no weights {quoted(name)} in {shown(self.root)}. {more}")
        return found[name]

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        waiting, looked_at = [(self.root, 0)], 0
        while waiting and looked_at < FOLDERS and len(found) < MOST:
            folder, depth = waiting.pop(0)
            looked_at += 1
            for path in _weights_in(folder):
                found.setdefault(path.relative_to(self.root).as_posix(), path)
            if depth < DEPTH and not RunFolder(folder).checkpoints.exists():
                waiting[:0] = [(path, depth + 1) for path in _folders_in(folder)]
        return dict(list(found.items())[:MOST])


def _weights_in(folder: Path) -> list[Path]:
    """A run with its checkpoints, the latest first; or the files of weights in a folder that is none."""
    run = RunFolder(folder)
    if run.checkpoints.exists():
        saved = steps(run.checkpoints)
        if not saved or _has_links(folder):
            return []
        return [folder, *(run.checkpoints / f"step{step:08d}" for step in reversed(saved))]
    found = [entry for entry in _entries(folder) if entry.name.endswith(".safetensors")]
    return sorted(Path(entry.path) for entry in found if entry.is_file(follow_symlinks=False))


def _folders_in(folder: Path) -> list[Path]:
    found = [entry for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
    return sorted(Path(entry.path) for entry in found if not entry.name.startswith("."))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # it went away, or is not ours to read: nothing to choose
        return []


def _has_links(folder: Path) -> bool:
    return any(
        os.path.islink(os.path.join(where, name))
        for where, folders, files in os.walk(folder)
        for name in [*folders, *files]
    )
