"""What was measured for weights, kept next to them: a folder for each weights, a JSON file for each thing.

    EXP_DIR/measured/0123456789abcdef/analytic.json     the first 16 digits of the SHA-256 of the weights' file
    FOLDER/measured/0123456789abcdef/times-10.json      next to a file of weights that is in no run
    EXP_DIR/calibration-ddim-10-1a2b3c4d.json           of calibrations, which are made for people to look at, too

A file holds the whole hash of the weights, when and with which versions and settings it was measured, and the numbers.
It can be copied to where the weights go, and removed: whoever needs the numbers measures them again, or says how to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ddpm_ip.errors import ConfigError
from ddpm_ip.files import ANY, Shape, make_folder, read_json, refuse_special, write_json
from ddpm_ip.run import builtin
from ddpm_ip.run.folder import RunFolder, homes
from ddpm_ip.run.provenance import versions

DIGITS = 16  # of the hash, in the name of the folder
PACKAGES = ("ddpm-ip", "torch")  # whose versions may move a number


@dataclass(frozen=True)
class Measured:
    """The store of some weights; nothing is written before :meth:`write`.

    Args:
        folder: of these weights alone.
        weights: SHA-256 of their file.
        kept: what could not be written, by name, for as long as this program runs.
        home: of the run, or of the file of weights; by default ``folder``.
    """

    folder: Path
    weights: str
    kept: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)
    home: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, weights: str, path: Path) -> Measured:
        """The store of weights.

        Args:
            weights: SHA-256 of their file (:attr:`ddpm_ip.run.weights.Weights.sha256`).
            path: where they were found: the folder of a run, a checkpoint, or a file.

        Raises:
            ConfigError: it is no SHA-256.
        """
        beside = cls.beside(weights, path)
        return cls(beside.folder / "measured" / weights[:DIGITS], weights, home=beside.folder)

    @classmethod
    def beside(cls, weights: str, path: Path) -> Measured:
        """The store whose files lie in the folder of the run itself, or next to the file of weights.

        Other weights may have files there, too, so a name has to tell them apart; :meth:`read` refuses those of others.
        Arguments and errors are those of :meth:`of`.
        """
        if re.fullmatch("[0-9a-f]{64}", weights) is None:
            raise ConfigError(f"{weights[:80]!r} is no SHA-256 of weights: 64 hexadecimal digits")
        return cls(_home(path), weights)

    def at_home(self) -> Measured:
        """Of the same weights the store that :meth:`beside` gives."""
        return Measured(self.home or self.folder, self.weights)

    def file(self, name: str) -> Path:
        """The file of one thing.

        Raises:
            ConfigError: the name is not of small letters and digits, with single hyphens and underscores in between.
        """
        if re.fullmatch("[a-z0-9]+([-_][a-z0-9]+)*", name) is None:
            raise ConfigError(f"{name!r}: what is measured is called by small letters, digits, hyphens and underscores")
        return self.folder / f"{name}.json"

    def read(self, name: str, needs: Shape = ANY, advice: str = "") -> dict[str, Any] | None:
        """What was measured, with ``weights``, ``measured`` (the time), ``versions`` and ``settings``.

        Args:
            name: of the thing, such as ``analytic``.
            needs: keys that must be there, with the types of their values.
            advice: how it is measured again.

        Returns:
            None if it was not measured.

        Raises:
            ConfigError: the file is damaged, or of other weights.
            NewerVersion: a newer version of ddpm-ip wrote it.
        """
        file = self.file(name)
        if not file.is_symlink() and not file.exists():
            return None
        found = read_json(file, {"weights": str, "settings": dict, **needs}, advice=advice, error=ConfigError)
        if found["weights"] != self.weights:
            raise ConfigError(
                f"{file} was measured for other weights ({found['weights'][:DIGITS]!r}, these are "
                f"{self.weights[:DIGITS]}). {advice or 'Remove it, and measure it of these'}"
            )
        return found

    def refuse_unwritable(self, name: str) -> None:
        """Raises before the work what writing would raise after it.

        Raises:
            ConfigError: the folder cannot be made, or something that is no file has the name.
        """
        builtin.ready(self.folder)
        make_folder(self.folder, ConfigError)
        if not os.access(self.folder, os.W_OK):
            raise ConfigError(f"{self.folder} is read-only: copy the weights, with their run, to where you may write")
        refuse_special(self.file(name), ConfigError)

    def write(self, name: str, numbers: Mapping[str, Any], settings: Mapping[str, Any], *, advice: str = "") -> Path:
        """Keeps what was measured, in place of an earlier file.

        Args:
            name: of the thing.
            numbers: by key, plain values.
            settings: what they depend on besides the weights.
            advice: what to do if it cannot be written; by default what helps against the reason.

        Returns:
            The file.

        Raises:
            ConfigError: it cannot be written; an earlier file is untouched.
        """
        builtin.ready(self.folder)
        about = {
            "weights": self.weights,
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": versions(*PACKAGES),
            "settings": dict(settings),
        }
        write_json(self.file(name), {**about, **numbers}, advice=advice, error=ConfigError)
        return self.file(name)


def _home(path: Path) -> Path:
    """The folder of the run that weights belong to, or else the folder of their file or checkpoint.

    Of built-in weights it is where their copy is, or will be (:mod:`ddpm_ip.run.builtin`).
    """
    path = path.absolute()
    for folder in homes(path):
        if RunFolder(folder).is_one:
            return builtin.home(folder)
    return path if path.is_dir() and not (path / "manifest.json").exists() else path.parent
