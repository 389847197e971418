"""What is at a path before something is written there. (:mod:`ddpm_ip.files` writes and reads, and has these, too.)"""

from __future__ import annotations

import logging
import os
import stat
from itertools import count
from pathlib import Path

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.plain import reason, remedy, shown

log = logging.getLogger("ddpm_ip.files")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with the home of a user for ``~`` at its beginning.

    Raises:
        ConfigError: there is no such user, or it is not known where the home is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{shown(path)}: there is no such home. Give the path by its full name") from None


def make_folder(path: Path, error: type[UserError] = UserError) -> None:
    """Makes a folder, and those that it is in, where they are missing; it may be reached through links.

    Raises:
        UserError: it cannot be made, or is something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        what = "a symbolic link to nowhere" if path.is_symlink() else "something else"
        raise error(f"{shown(path)} must be a folder, and {what} is in its place. Choose another name") from None
    except OSError as caught:
        raise error(f"the folder {shown(path)} cannot be made: {reason(caught)}. {remedy(caught)}") from caught


def set_aside(path: Path, why: str) -> Path:
    """Renames a damaged file to ``NAME.damaged-1`` (or -2, ...), so that it is in nobody's way and nothing is lost.

    Returns:
        Its new path; the warning says it, and ``why``.

    Raises:
        UserError: it cannot be renamed.
    """
    names = (path.with_name(f"{path.name}.damaged-{n}") for n in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    try:
        os.rename(path, aside)
    except OSError as caught:
        raise UserError(f"{shown(path)} cannot be renamed: {reason(caught)}. {remedy(caught)}") from caught
    log.warning("%s is damaged (%s) and was set aside as %s", path, why, aside.name)
    return aside


def refuse_special(path: Path, error: type[UserError] = UserError) -> None:
    """Refuses what is never written over, as every writer does: better before hours of work than after them.

    Raises:
        UserError: it is a symbolic link, a folder, a pipe or a device.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # absent; if it cannot be reached, writing says why
        return
    if stat.S_ISLNK(mode):
        raise error(
            f"{shown(path)} is a symbolic link to {shown(os.readlink(path))}, and nothing is written "
            "through it: remove the link, or give the file that it points to"
        )
    if not stat.S_ISREG(mode):
        raise error(
            f"{shown(path)} cannot be written: {kind_of_file(mode)} is in its place. Remove it, or choose another name"
        )


def kind_of_file(mode: int) -> str:
    """In words, of what is no file."""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
