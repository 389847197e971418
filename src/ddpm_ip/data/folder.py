"""A folder of image files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

from ddpm_ip.data.decode import ImageSize
from ddpm_ip.data.decoded import Item, Listing, Mode, OnBad, Recipe, open_decoded
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.labels import PREFIX, Labels, by_file, by_prefix, by_subfolder, found_beside
from ddpm_ip.data.passed_over import GRID, MARK, SUFFIXES, is_taken, lookalikes, passed_over
from ddpm_ip.data.source import existing
from ddpm_ip.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Folder:
    """All image files below a folder, sorted by path.

    Files count as images by their suffix; hidden files and folders are passed over, and so are links to folders. A
    warning says how many files look like images and are not taken, which they are, and how to use them. If every image
    is in a subfolder, the names of the first-level subfolders, sorted, are the classes, and labels number them, unless
    ``labels`` says otherwise.

    Attributes:
        root: the folder.
        image_size: height and width after resizing (see :func:`ddpm_ip.data.decode.fit`), or one number for both.
        mode: ``rgb``, ``gray``, ``rgba`` (four channels), or ``auto``: gray or RGB, as the first readable image is.
        center_crop: side of the square cut out of the middle before resizing.
        on_bad: ``error`` lists all unusable images and stops; ``skip`` leaves them out and records them.
        cache: folder for the decoded pixels; by default ``$XDG_CACHE_HOME/ddpm-ip`` or ``~/.cache/ddpm-ip``.
        labels: a CSV file, here or in the folder, with a line for every image: its path in the folder, and its label, a
            whole number or a name (see :mod:`ddpm_ip.data.labels`). Or ``prefix``: the class is what stands before the
            first underscore of a file's name, as in guided-diffusion.
    """

    name: Literal["folder"] = "folder"
    root: str
    image_size: ImageSize
    mode: Mode = "rgb"
    center_crop: int | None = None
    on_bad: OnBad = "error"
    cache: str | None = None
    labels: str | None = None

    def open(self, progress: bool = True) -> ImageSet:
        """Lists the files, and decodes them or finds them decoded.

        Raises:
            DataError: the folder is missing or holds no image, labels are missing, or an image is unusable under
                ``error``.
        """
        recipe = Recipe(self.image_size, self.mode, self.center_crop)
        return open_decoded(self.listing(), recipe, self.cache, self.on_bad, progress)

    def listing(self) -> Listing:
        """The files, before anything is decoded.

        Raises:
            DataError: the folder is missing or holds no image, or labels are missing.
        """
        root = existing(self.root, "a folder of images")
        files = list(_files(root))
        paths = _sorted(files, root)
        passed = passed_over((path for path, taken in files if not taken), root)
        if not paths:
            said = f". {lookalikes(passed)}" if lookalikes(passed) else f" (looked for {', '.join(sorted(SUFFIXES))})"
            raise DataError(f"data.root: no image file below {root}{said}")
        labels = self._labels(paths, root)
        identity = (str(root.resolve()), *(_identity(path, root) for path in paths))
        if labels is not None and self.labels is not None:  # those of subfolders are in the paths
            identity += (f"labels {hashlib.sha256(labels.numbers.tobytes()).hexdigest()}",)
        numbers = repeat(None) if labels is None else labels.numbers.tolist()

        def items() -> Iterator[Item]:
            return (Item(str(path), path, number) for path, number in zip(paths, numbers, strict=False))

        return Listing(root.resolve().name, len(paths), items, identity, labels.classes if labels else (), passed)

    def some_labels(self) -> Labels | None:
        """The labels, before anything is decoded; None if there are none.

        Raises:
            DataError: as :meth:`listing`.
        """
        root = existing(self.root, "a folder of images")
        paths = _sorted(_files(root), root)
        return self._labels(paths, root) if paths else None

    def _labels(self, paths: Sequence[Path], root: Path) -> Labels | None:
        """Of the images in their order; None if there are none.

        Raises:
            DataError: the CSV file cannot be used, or a name has no class in it.
        """
        files = [path.relative_to(root).as_posix() for path in paths]
        if self.labels == PREFIX:
            return by_prefix(files)
        if self.labels is not None:
            return by_file(found_beside(self.labels, root, f"a CSV file of labels, or {PREFIX}"), files, root)
        return by_subfolder(files)


def walk(root: Path) -> Iterator[Path]:
    """The image files below a folder, by their suffixes, in the order of the disk; what is hidden is passed over.

    Raises:
        DataError: a folder cannot be listed.
    """
    return (path for path, taken in _files(root) if taken)


def _sorted(files: Iterable[tuple[Path, bool]], root: Path) -> list[Path]:
    return sorted((path for path, taken in files if taken), key=lambda path: path.relative_to(root).parts)


def _files(root: Path) -> Iterator[tuple[Path, bool]]:
    """All files below a folder, and links to folders, and whether each is taken for an image; in the order of the disk.

    Nothing is said of what is in hidden folders, nor of the grid that ``ddpm-ip sample`` leaves with its images.

    Raises:
        DataError: it is no folder, or a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:  # os.walk would pass over a folder that it cannot list
        raise DataError(f"data.root: cannot list {error.filename}: {error.strerror}") from error

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from ((path, False) for name in subfolders if (path := Path(folder, name)).is_symlink())
        no_sample = GRID if MARK in files else None
        yield from ((Path(folder, name), is_taken(name)) for name in files if name != no_sample)


def _identity(path: Path, root: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return f"{path.relative_to(root)} unreadable"
    # The permissions, too: a file that was unreadable and no longer is must be looked at again.
    return f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns} {stat.st_mode:o}"
