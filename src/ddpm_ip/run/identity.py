"""What a run is: the settings that its newest checkpoint was made with, and how they changed on the way.

The checkpoint says it, since it was written together with the weights. ``config.yaml`` in the folder is for people, and
speaks only where there is no checkpoint yet. Nothing here needs PyTorch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import ANY, LARGEST_JSON, read_bytes, read_json, read_yaml
from ddpm_ip.run.folder import config_near
from ddpm_ip.run.header import Header, read_header


@dataclass(frozen=True)
class Identity:
    """What a run is.

    Attributes:
        config: its settings, plain values.
        origin: the file that says so.
        history: the changes of settings, ``{"step": 500, "changes": ["seed: 0 -> 1"]}``, the newest last.
        step: of the checkpoint; None if there is none.
        imported: for a run that began with weights from elsewhere, where they are from
            (:func:`ddpm_ip.interop.program.take`); None for one that began here.
        init_from: whose weights it began with; None if with none.
    """

    config: Mapping[str, Any]
    origin: Path
    history: tuple[Mapping[str, Any], ...] = ()
    step: int | None = None
    imported: Mapping[str, Any] | None = None
    init_from: Mapping[str, Any] | None = None


def identity(path: Path) -> Identity:
    """The identity of the run that a path belongs to.

    Args:
        path: the folder of a run, a checkpoint, or a file of weights in one.

    Raises:
        ConfigError: nothing there says it, or only a config.yaml that cannot be read.
        CheckpointError: a file of weights says it in a way that cannot be read.
    """
    if path.is_file() and (header := read_header(path)) is not None:
        return of_header(header, path)
    for folder in _checkpoints(path):
        if (found := of_checkpoint(folder)) is not None:
            return found
    is_folder_of_a_run = path.is_dir() and not (path / "manifest.json").exists()
    file = path / "config.yaml" if is_folder_of_a_run else config_near(path)
    if not path.exists() or file is None or not file.is_file():
        raise ConfigError(
            f"{path} belongs to no folder of a run: there is no checkpoint and no config.yaml. Give the folder that "
            "training wrote (its EXP_DIR); of a network from elsewhere `ddpm-ip import SOURCE -e EXP_DIR` makes one"
        )
    return Identity(read_yaml(file), file)


def of_checkpoint(folder: Path) -> Identity | None:
    """What a checkpoint says of its run; None if its meta.json is damaged. The weights are not looked at."""
    file = folder / "meta.json"
    try:
        listed = read_json(folder / "manifest.json", {"meta.json": dict}, links=False)["meta.json"]
        if hashlib.sha256(read_bytes(file, LARGEST_JSON)).hexdigest() != listed.get("sha256"):
            return None
        return of_meta(read_json(file, ANY, links=False), file)
    except UserError:
        return None


def of_meta(meta: Mapping[str, Any], origin: Path) -> Identity | None:
    """What the meta.json of a checkpoint says of its run; None if it says nothing."""
    config, step = meta.get("config"), meta.get("step")
    if not isinstance(config, dict) or type(step) is not int:
        return None
    return Identity(config, origin, tuple(changes_in(meta)), step, imported_in(meta), _dict(meta.get("init_from")))


def imported_in(meta: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Where the weights of a checkpoint's run began, if that is elsewhere: format, origin, licence, sha256, ..."""
    return _dict(meta.get("imported"))


def _dict(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def origin_in_words(imported: Mapping[str, Any]) -> str:
    """``imported from ckpt.pt (pytorch-ddpm, licence MIT)``."""
    origin, form, licence = (str(imported.get(k, "unknown"))[:200] for k in ("origin", "format", "licence"))
    return f"imported from {origin} ({form}, licence {licence})"


def method(
    trained: str, history: Iterable[Mapping[str, Any]], imported: Mapping[str, Any] | None, step: int | None
) -> str:
    """What a run is called in tables, reports and cards: how it is trained, since when, and from which weights on.

    Args:
        trained: what its perturbation is called.
        history: see :class:`Identity`; so are ``imported`` and ``step``.
    """
    said = trained + since(history, "perturbation")
    return said if imported is None else origin_in_words(imported) + (f", then {said}" if step else "")


def of_header(header: Header, origin: Path) -> Identity:
    """What a file of weights says of its run."""
    return Identity(
        header.config, origin, tuple(changes_in({"history": list(header.history)})), header.step, header.imported
    )


def changes_in(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The history in a checkpoint's meta.json, without whatever else somebody put there."""
    found = meta.get("history")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return [entry for entry in entries if type(entry.get("step")) is int and isinstance(entry.get("changes"), list)]


def since(history: Iterable[Mapping[str, Any]], section: str) -> str:
    """`` (since step 500)`` if a section of the configuration changed on the way, the last time there; else nothing.

    The name of a run ends with it, so that no name claims for all steps what is true only of the last ones.
    """
    steps = [entry["step"] for entry in history if any(str(c).startswith(f"{section}.") for c in entry["changes"])]
    return f" (since step {steps[-1]})" if steps else ""


def _checkpoints(path: Path) -> Iterator[Path]:
    """The checkpoints that a path may mean, the newest first."""
    if path.is_file():
        yield path.parent
    elif (path / "manifest.json").is_file():
        yield path
    else:
        for folder in (path / "ckpt", path):
            found = [p for p in folder.glob("step*") if re.fullmatch(r"step\d{8,}", p.name) and p.is_dir()]
            yield from sorted(found, key=lambda p: int(p.name.removeprefix("step")), reverse=True)
