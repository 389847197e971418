"""What a safetensors file of weights says about itself, so that one file is a whole model.

The header of a safetensors file has room for texts (``__metadata__``). ``ddpm-ip export`` puts there:

    ddpm_ip.schema      1; a higher number is refused as written by a newer version
    ddpm_ip.version     of this package
    ddpm_ip.config      the configuration that the weights were trained with
    ddpm_ip.step        optimizer steps behind them
    ddpm_ip.history     how the configuration changed on the way
    ddpm_ip.averaged    whether they are an average: true, false or unknown; of several averages, which
    ddpm_ip.weights     SHA-256 of the file that they were taken from
    ddpm_ip.imported    where imported weights came from

The header is read like all bytes of strangers: bounded, as plain values, and nothing in it is run. It needs no PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_ip.errors import CheckpointError, NewerVersion
from ddpm_ip.files import MB, SCHEMA, reading
from ddpm_ip.plain import parse_json, quoted, shown

LARGEST_HEADER = 10 * MB  # bytes; of a network with 1,000 tensors it has 0.1 MB
PREFIX = "ddpm_ip."


class Header(NamedTuple):
    """What a file of weights says about itself.

    Attributes:
        config: the settings that they were trained with, plain values.
        step: optimizer steps behind them; None if it is not known.
        history: changes of the settings, as :class:`ddpm_ip.run.identity.Identity` has them.
        averaged: whether they are an average, and of several which, or ``unknown``.
        weights: SHA-256 of the file that they were taken from.
        imported: where imported weights came from; None for weights that were trained here.
        version: of the package that wrote it.
    """

    config: Mapping[str, Any]
    step: int | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    averaged: bool | str = "unknown"
    weights: str | None = None
    imported: Mapping[str, Any] | None = None
    version: str | None = None

    def texts(self) -> dict[str, str]:
        """The metadata to write. ``format`` is what other programs ask for."""
        values = {"schema": SCHEMA, **self._asdict(), "history": list(self.history)}
        return {"format": "pt"} | {
            f"{PREFIX}{key}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in values.items()
            if value is not None
        }


def read_header(path: Path) -> Header | None:
    """What a safetensors file says about itself; None if it names no configuration.

    Raises:
        CheckpointError: it says it in a way that cannot be read.
        NewerVersion: it was written by a newer version.
    """
    texts = _metadata(path)
    if f"{PREFIX}config" not in texts:
        return None
    with reading(path, "Export the weights again, or give the configuration of their run", CheckpointError):
        found = {key.removeprefix(PREFIX): text for key, text in texts.items() if key.startswith(PREFIX)}
        schema = parse_json(found.get("schema", "1"))
        if type(schema) is not int:
            raise TypeError(f"its header has the schema {quoted(schema)}, which is not a whole number")
        if schema > SCHEMA:
            raise NewerVersion(
                f"{shown(path)} was written by a newer version of ddpm-ip (schema {schema}, this version knows "
                f"{SCHEMA}): update ddpm-ip"
            )
        config, step = parse_json(found["config"]), parse_json(found.get("step", "null"))
        history, imported = parse_json(found.get("history", "[]")), parse_json(found.get("imported", "null"))
        if not isinstance(config, dict):
            raise TypeError("the configuration in its header is not an object of keys and values")
        if step is not None and (type(step) is not int or step < 0):
            raise TypeError(f"its header has the step {quoted(step)}")
        said = found.get("averaged", "")
        which = said if 0 < len(said) <= 100 and said.isprintable() else "unknown"
        averaged: bool | str = {"true": True, "false": False}.get(which, which)
        return Header(
            config,
            step,
            tuple(entry for entry in history if isinstance(entry, dict)) if isinstance(history, list) else (),
            averaged,
            found.get("weights"),
            imported if isinstance(imported, dict) else None,
            found.get("version"),
        )


def _metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; none of what is no such file, which reading its tensors says."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            found = parse_json(file.read(size).decode()) if size <= LARGEST_HEADER else {}
        texts = found["__metadata__"]
        return {key: text for key, text in texts.items() if isinstance(text, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
