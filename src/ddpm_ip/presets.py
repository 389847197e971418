"""Configurations that come with the package, by name: a stand-in until the one with suggestions is merged."""

from __future__ import annotations

from pathlib import Path

from ddpm_ip.errors import ConfigError


def _folder() -> Path:
    """In a wheel beside this file; in a checkout the folder ``configs``."""
    package = Path(__file__).parent
    return next((f for f in (package / "configs", package.parents[1] / "configs") if f.is_dir()), package)


def names() -> list[str]:
    """Their names, without ``.yaml``, in order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find(text: str) -> Path:
    """The file of a preset, by its name with or without ``.yaml``.

    Raises:
        ConfigError: there is none of that name.
    """
    name = text.removesuffix(".yaml")
    if name not in names():
        raise ConfigError(f"there is no configuration {text!r:.80}: known are {', '.join(names())}")
    return _folder() / f"{name}.yaml"
