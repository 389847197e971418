"""How to install the extras of this package, in the way in which the package itself is installed."""

from __future__ import annotations

from pathlib import Path

# What a run can be followed with (train.trackers) -> the extra that brings it
TRACKERS = {"tensorboard": "log", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}


def checkout() -> Path | None:
    """The repository that the package is used from (``pip install -e``, or its ``src`` on the path), if it is."""
    source = Path(__file__).resolve().parent.parent
    return source.parent if source.name == "src" and (source.parent / "pyproject.toml").is_file() else None


def how_to_install(*extras: str) -> str:
    """The command that brings optional packages: ``pip install "ddpm-ip[plot]"``.

    In a checkout it is ``pip install -e ".[plot]"``, with the folder in which to give it.

    Args:
        extras: names of ``[project.optional-dependencies]`` in pyproject.toml.
    """
    names, source = ",".join(extras), checkout()
    return f'pip install "ddpm-ip[{names}]"' if source is None else f'pip install -e ".[{names}]" in {source}'
