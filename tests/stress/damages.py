"""One file after the other of a run, of its samples and of its table: emptied, cut, gone, or something else instead.

Then the commands that use it are given again. Whatever comes of that, nothing outside the folder is written to, and a
run that continues has the weights that it would have had.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stress.cases import Case, Fault, asked, copied
from tests.stress.goods import good
from tests.stress.readers import again, continued, doctor, measured, report, resumed, walked

OUTSIDE = b"somebody else's\n"


def emptied(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path, outside: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path, outside: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def gone(path: Path, outside: Path) -> None:
    path.unlink()


def link(path: Path, outside: Path) -> None:
    """To a file that is not ours."""
    path.unlink()
    path.symlink_to(outside / "file")


def link_to_nothing(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "new")


def loop(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def moved(path: Path, outside: Path) -> None:
    """The same file, elsewhere, and a link to it."""
    os.replace(path, outside / "moved")
    path.symlink_to(outside / "moved")


def pipe(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


def full_folder(path: Path, outside: Path) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


def unreadable(path: Path, outside: Path) -> None:
    """(Root may read it all the same.)"""
    path.chmod(0)


def to_zero_device(path: Path, outside: Path) -> None:
    """What has no end."""
    path.unlink()
    path.symlink_to("/dev/zero")


def no_text(path: Path, outside: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00" + path.read_bytes())


DAMAGES = (
    emptied, cut, zeros, gone, link, link_to_nothing, loop, moved, pipe, folder, full_folder, unreadable,
    to_zero_device, no_text,
)  # fmt: skip

COMMANDS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "train": ("run", resumed),
    "sample": ("samples", again),
    "evaluate": ("samples", walked),
    "table": ("table", measured),
    "report": ("table", report),
    "doctor": ("run", doctor),
}
"""The good files that a command is given, and the command."""


def prepare(command: str) -> None:
    """Makes the good files."""
    cases(command)
    if command == "train":
        continued()


def cases(command: str) -> int:
    """How many there are: every damage to every file."""
    return len(DAMAGES) * len(_files(good(COMMANDS[command][0])))


def play(case: Case, home: Path) -> Counter[str]:
    """A command after its damage number so and so; beyond these, after two at random."""
    which, call = COMMANDS[case.name]
    rng, number = case.rng, case.number
    place = copied(good(which), home / which)
    outside = home / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(OUTSIDE)
    paths = _files(place)
    if number < cases(case.name):
        chosen = [(DAMAGES[number % len(DAMAGES)], paths[number // len(DAMAGES)])]
    else:
        chosen = [(rng.choice(DAMAGES), path) for path in rng.sample(paths, 2)]
    moved_bytes = [path.read_bytes() for damage, path in chosen if damage is moved]
    for damage, path in chosen:
        damage(path, outside)
    word, result = asked(call, place)
    found = [path.read_bytes() for path in sorted(outside.iterdir())]
    if found != [OUTSIDE, *moved_bytes[-1:]]:
        raise Fault(f"what a link points to was written: {[p.name for p in outside.iterdir()]}")
    if word == "success" and call is resumed and result != continued():
        raise Fault("the run has other weights than an undisturbed one")
    return Counter({word: 1, "damages": len(chosen)})


def _files(place: Path) -> list[Path]:
    """All but those of older checkpoints than the newest."""
    older = sorted(place.glob("ckpt/step*"))[:-1]
    return sorted(path for path in place.rglob("*") if path.is_file() and path.parent not in older)
