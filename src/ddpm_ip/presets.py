"""The configurations that come with the package, found by name: ``-c ddpm_ip_cifar10``.

They are the files of the folder ``configs/`` of the repository, which an installed package has inside. A file of the
user's wins over a preset of the same name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ddpm_ip.errors import ConfigError
from ddpm_ip.extras import checkout
from ddpm_ip.files import read_bytes, reading
from ddpm_ip.plain import shown

LARGEST = 1024 * 1024  # bytes of a file that is printed
LISTED = "`ddpm-ip config` lists the presets"


def folder() -> Path:
    """Where the presets are: in the package, or in the checkout that it is used from."""
    source = checkout()
    return Path(__file__).with_name("configs") if source is None else source / "configs"


def names() -> list[str]:
    """All presets, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(text: str | os.PathLike[str]) -> Path:
    """The configuration file that a path or the name of a preset means.

    Args:
        text: a path, which wins where there is a file; or a name as in :func:`names`, with or without ``.yaml``.

    Raises:
        ConfigError: neither is there; says the nearest names. (A path with folders that is not there is returned as it
            is, for the one who reads it to say why, unless its last part is a preset.)
    """
    text, path = os.fspath(text), Path(text)
    if os.path.lexists(path) and not path.is_dir():
        return path
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    known, bare = names(), text == path.name
    if bare and name in known:
        return folder() / f"{name}.yaml"
    if os.path.lexists(path):
        return path
    if name in known:
        raise ConfigError(f"{shown(text)} cannot be read: there is no such file; the preset of that name is {name}")
    if not bare:
        return path
    raise ConfigError(
        f"{shown(text)} cannot be read: there is no such file, and no preset of that name; {_near(name, known)}"
    )


def _near(name: str, known: list[str]) -> str:
    """What may have been meant, and where all are listed."""
    from difflib import get_close_matches

    near = get_close_matches(name[:100], known, n=3, cutoff=0.65)
    *first, last = near or [""]
    return f"did you mean {', '.join(first)}{' or ' if first else ''}{last}? {LISTED}" if near else LISTED


def text_of(path: Path) -> str:
    """A configuration file as it is, comments included.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    with reading(path, LISTED, ConfigError):
        return read_bytes(path, LARGEST, advice=LISTED, error=ConfigError).decode("utf-8-sig")


def summary(name: str) -> str:
    """What a preset is, in one line: the first sentence of its comment, without what stands in brackets.

    Raises:
        ConfigError: its file cannot be read.
    """
    lines = text_of(folder() / f"{name}.yaml").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    plain = re.sub(r" \([^)]*\)", "", " ".join(comment))
    return re.split(r"(?<=(?<!\bal)\.) ", plain)[0]
