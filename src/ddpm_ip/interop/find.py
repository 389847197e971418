"""Weights of any kind: a run, a checkpoint or a file of ours; or a network from elsewhere, with its configuration.

What a foreign source says about its network counts. What it leaves open comes from a configuration or from options, or
else is assumed, which is logged. Where both say something they must agree; where a configuration leaves out what the
source says (``model.padding`` of a network of xyfJASON's), the source decides, and a line in the log says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ddpm_ip.config import Config, from_dict, load, merge, read_tree
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.files import reading
from ddpm_ip.interop import adm, diffusers, hub, pesser, pytorch_ddpm, read, xyfjason
from ddpm_ip.interop.base import Format, Imported, KeyedFormat, sentences
from ddpm_ip.plain import quoted, shown
from ddpm_ip.run import builtin
from ddpm_ip.run import weights as own
from ddpm_ip.run.checkpoint import sha256
from ddpm_ip.run.identity import Identity
from ddpm_ip.run.record import flatten
from ddpm_ip.run.tensors import mismatches, refuse_not_finite, some
from ddpm_ip.run.weights import Weights
from ddpm_ip.translation import in_our_words

log = logging.getLogger("ddpm_ip.interop")

FORMATS: tuple[Format, ...] = (diffusers,)  # that are known by a folder or a file
KEYED: tuple[KeyedFormat, ...] = (adm, xyfjason, pytorch_ddpm, pesser)  # that are known by the names of tensors
UNKNOWN = "unknown"  # a licence that nobody has said
SIZE = 32  # pixels, of images of which nothing says it
SECTIONS = ("model", "diffusion", "classes")  # that a source speaks of
AVERAGE = "ema_model.pt"  # in a folder that xyfJASON's training wrote


class Found(NamedTuple):
    """A foreign network with its configuration.

    Attributes:
        imported: the network.
        config: everything that it is used with; what a source cannot say has its default, data are ``unknown``.
        sha256: of its file; of several, of their hashes in the order of their names.
        assumed: what neither the source nor anybody has said.
    """

    imported: Imported
    config: Config
    sha256: str
    assumed: tuple[str, ...]


def find_weights(
    path: Path, file: Path | None = None, overrides: Mapping[str, Any] | None = None, ema: str | None = None
) -> Weights:
    """The averaged network's weights, from a source of any known kind.

    Args:
        path: what :func:`ddpm_ip.run.weights.find_weights` takes; the name of built-in weights
            (:mod:`ddpm_ip.run.builtin`); or a file or folder of a foreign format; or a name on
            the Hugging Face hub.
        file: a configuration for a foreign network, which decides what its source leaves open.
        overrides: items of it, by dotted path.
        ema: which average of a run.

    Raises:
        CheckpointError: there are no weights, or they are damaged, not finite, or of an unknown kind.
        ConfigError: the configuration contradicts the source.
    """
    path = builtin.found(path)
    place = source(path)
    return own.find_weights(path, ema) if place is None else foreign_weights(place, given(file, overrides), ema)


def foreign_weights(place: Path, said: Mapping[str, Any], ema: str | None = None) -> Weights:
    """The weights of a foreign network, with its configuration; see :func:`network`.

    Raises:
        ConfigError: also if ``ema`` asks for one of several averages.
    """
    if ema is not None:
        raise ConfigError(f"--ema {ema:.80}: {shown(place)} is of another program, and no run with several averages")
    found = network(place, said)
    tell(found, place)
    identity = Identity(found.config.to_dict(), place, imported=about_of(found, str(place)))
    return Weights(dict(found.imported.tensors), found.sha256, found.imported.averaged, None, str(place), identity)


def tell(found: Found, place: Path) -> None:
    """Says in the log what was recognised, and what was assumed."""
    log.info("%s is a network of the format %s", shown(place), found.imported.format)
    if found.assumed:
        log.warning(
            "nothing says these of it: %s. Say so with -c or --KEY VALUE if they are not", sentences(found.assumed)
        )
    if found.imported.notes:
        log.warning("it is sampled as the section sampling says: %s", sentences(found.imported.notes))


def about_of(found: Found, origin: str, licence: str = UNKNOWN) -> dict[str, Any]:
    """What is kept of where weights are from; ``licence`` as a person knows it."""
    return {
        "format": found.imported.format,
        "origin": origin,
        "files": [file.name for file in found.imported.files],
        "sha256": found.sha256,
        "licence": licence.strip()[:500] or UNKNOWN,
        "averaged": found.imported.averaged,
        "assumed": list(found.assumed),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def source(path: Path) -> Path | None:
    """The file or folder of a foreign network that a path means; None if it is one of ours, or nothing.

    Raises:
        CheckpointError: it is a name on the hub, and cannot be fetched.
    """
    if not path.exists():
        path = hub.fetched(path) if hub.is_name(path) else path
    if any(form.recognises(path) for form in FORMATS):
        return path
    if path.is_dir():
        return path / AVERAGE if (path / AVERAGE).is_file() and not (path / "manifest.json").exists() else None
    if path.suffix == ".safetensors":
        known = path.is_file() and any(_format(state.tensors) for state in read.states(path))
        return path if known else None
    return path if path.exists() else None


def network(place: Path, said: Mapping[str, Any]) -> Found:
    """Reads a foreign network.

    Args:
        place: of :func:`source`.
        said: what is given of it, a tree of plain values with the sections of a configuration.

    Raises:
        CheckpointError: it cannot be used.
        ConfigError: what is given contradicts it, or cannot be used.
    """
    form = next((form for form in FORMATS if form.recognises(place)), None)
    imported = form.convert(place, said) if form is not None else _by_keys(place, said)
    refuse_not_finite(imported.tensors, place)
    _agree(imported, said, place)
    assumed, data = list(imported.assumed), {**_section(imported.config, "data"), **_section(said, "data")}
    if data.keys() <= {"image_size"}:
        assumed += [] if data else [f"data.image_size is taken to be {SIZE}"]
        data = {"name": "unknown", "image_size": SIZE, **data}
    sections = {k: {**_section(said, k), **imported.config[k]} for k in SECTIONS if k in imported.config}
    tree = {k: v for k, v in said.items() if k not in SECTIONS}
    config = from_dict({**tree, "data": data, **sections}, f"what {shown(place)} and the options say")
    config.model.check(*config.shape[1:])
    with torch.device("meta"):
        own_tensors = config.build_network().state_dict()
    if wrong := mismatches(own_tensors, imported.tensors):
        raise CheckpointError(f"{shown(place)} is not the network that its first tensors tell of:\n{some(wrong)}")
    _mention(imported, said, config, place)
    with reading(place, error=CheckpointError):
        return Found(imported, config, _hash(imported.files), tuple(assumed))


def given(file: Path | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a configuration and options say, and nothing that they leave out, in this program's words.

    Raises:
        ConfigError: one of them cannot be used.
    """
    tree, options = {} if file is None else read_tree(file), overrides or {}
    if file is not None and "data" in tree:
        load(file, options)  # tells of every mistake
    words = in_our_words(tree, options)
    words.notes.refuse("the command line" if file is None else str(file))
    return merge(words.tree, words.overrides)


def _by_keys(place: Path, said: Mapping[str, Any]) -> Imported:
    found = read.states(place)
    for state in found:
        if (form := _format(state.tensors)) is not None:
            return form.convert(state, said)
    known = "\n".join(f"  {form.NAME}: {form.KEYS}" for form in KEYED)
    names = [name for state in found for name in state.tensors][:4]
    holds = f"holds tensors such as {', '.join(map(quoted, names))}" if names else "holds no tensors by name"
    raise CheckpointError(
        f"{shown(place)} {holds}, and is of no format that is known here. Known are, by their names:\n{known}"
    )


def _format(names: Mapping[str, Any]) -> KeyedFormat | None:
    return next((form for form in KEYED if form.recognises(names)), None)


def _agree(imported: Imported, said: Mapping[str, Any], place: Path) -> None:
    """Refuses a configuration of another network.

    Raises:
        ConfigError: with every difference.
    """
    wrong = []
    for section in SECTIONS:
        wanted, has = flatten(_section(said, section)), flatten(_section(imported.config, section))
        if wanted and not has:
            wrong.append(f"{section}: the network has none")
        for key in wanted.keys() & has.keys():
            if _plain(wanted[key]) != _plain(has[key]):
                wrong.append(f"{section}.{key}: the network has {has[key]!r}, asked for is {wanted[key]!r}")
    if wrong:
        lines = "\n".join(f"  {line}" for line in sorted(wrong))
        raise ConfigError(f"{shown(place)} ({imported.format}) is another network than is asked for:\n{lines}")


def _mention(imported: Imported, said: Mapping[str, Any], config: Config, place: Path) -> None:
    """Says what a configuration leaves out that the source decides, and not as it would be by default."""
    asked, found = _section(said, "model"), dataclasses.asdict(config.model)
    usual = dataclasses.asdict(type(config.model)())
    assumed = [k for k in found if any(text.startswith(f"model.{k} is taken") for text in imported.assumed)]
    left_out = [k for k in imported.config["model"] if k not in asked and k not in assumed]
    if asked and (other := [k for k in left_out if found.get(k) != usual.get(k)]):
        decided = ", ".join(f"model.{key} {found[key]}" for key in other)
        log.info("%s is of the format %s, which decides: %s", shown(place), imported.format, decided)


def _section(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = said.get(name)
    return dict(found) if isinstance(found, Mapping) else {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _hash(files: tuple[Path, ...]) -> str:
    """SHA-256 of a file; of several, of their hashes in the order of their names."""
    hashes = [sha256(file) for file in sorted(files)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
