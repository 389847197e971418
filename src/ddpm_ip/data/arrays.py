"""Images that are already arrays: the embedded digits, and ``.npz`` or ``.npy`` files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ddpm_ip.data.decode import MAX_CHANNELS, ImageSize, UInt8
from ddpm_ip.data.imageset import ImageSet, from_arrays
from ddpm_ip.data.labels import Labels, found_beside, numbered
from ddpm_ip.data.npy import Archive, Header, archive, map_npy
from ddpm_ip.data.source import existing, opened, refusing
from ddpm_ip.errors import DataError
from ddpm_ip.files import writing
from ddpm_ip.places import expanded
from ddpm_ip.plain import quoted, shown

LABELS = "labels"
LAYOUT = "layout"  # of the array that says which axis holds the channels
SAMPLING = "sampling"  # of the array that says what images are made of: text
SHOWN = 20  # arrays that an error names
MAX_LABELS = 1_000_000_000  # bytes of a file of labels, which is held in memory

Layout = Literal["auto", "channels_first", "channels_last"]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1,797 gray 8 x 8 images of handwritten digits that come with the package (``DIGITS.md`` tells from where).

    Attributes:
        image_size: 8, or another height and width to resize to, or one number for both.
    """

    name: Literal["digits"] = "digits"
    image_size: ImageSize = 8

    def open(self, progress: bool = True) -> ImageSet:
        """``uint8`` (1797, 1, 8, 8), labels 0..9."""
        with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
            return from_arrays(arrays["images"], arrays["labels"], "digits", self.image_size, progress)

    def some_labels(self) -> Labels | None:
        """One of each."""
        return Labels(np.arange(10), ())


@dataclass(frozen=True, kw_only=True)
class Npz:
    """An ``.npz`` or ``.npy`` file with ``uint8`` images (N, H, W, C), (N, C, H, W) or (N, H, W), C in 1..16.

    The images are the array called ``images``, or else the only one that can be images: three or four axes. Of several,
    ``array`` chooses; without it they are refused. The labels are those that belong to the images by name: ``labels``,
    ``arr_1`` to ``arr_0`` (guided-diffusion's names), ``y_train`` to ``x_train`` (Keras'), ``train_labels`` to
    ``train_images``. A ``.npy`` file is mapped, not loaded.

    Attributes:
        root: the file.
        image_size: height and width, or one number for both; images of another size are resized, in memory.
        layout: where the channels are, ``channels_first`` (N, C, H, W) or ``channels_last`` (N, H, W, C). ``auto``
            takes what the file says in an array ``layout``; else 1 or 3 at the last place for channels, or else 1 or 3
            at the second; else the only one of the two places that has at most 16.
        array: the name of the images among the arrays of an ``.npz`` file.
        labels: the name of the labels among them, where they belong to no images by name; or a ``.npy`` file of labels,
            here or next to ``root``. Whole numbers (N,) are kept; texts are names, sorted into the classes 0, 1, ...
    """

    name: Literal["npz"] = "npz"
    root: str
    image_size: ImageSize
    layout: Layout = "auto"
    array: str | None = None
    labels: str | None = None

    def open(self, progress: bool = True) -> ImageSet:
        """Reads the arrays; nothing in the file is ever unpickled.

        Raises:
            DataError: the file is missing or damaged; the array is not ``uint8`` images, or it is not certain how they
                are laid out, or which array holds them; or labels are asked for that are not there.
        """
        path = existing(self.root, "an .npz or .npy file")
        images, labels = read_arrays(path, self.layout, self.array)
        classes: tuple[str, ...] = ()
        if self.labels is not None:
            labels, classes = read_labels(path, self.labels)
        return replace(from_arrays(images, labels, path.stem, self.image_size, progress), classes=classes)

    def some_labels(self) -> Labels | None:
        """The labels, without the images; None if there are none.

        Raises:
            DataError: they are asked for and are not there, or the file is damaged.
        """
        path = existing(self.root, "an .npz or .npy file")
        if self.labels is not None:
            return read_labels(path, self.labels)
        if path.suffix == ".npy":
            return None
        with _refusing(path), archive(path) as arrays:
            name = _labels_of(_images(_pictures(arrays), path, self.array), _pictures(arrays))
            return None if name is None else Labels(_whole(arrays.read(name), path).astype(np.int64), ())


def save_images(path: Path | str, images: UInt8, labels: npt.ArrayLike | None = None) -> Npz:
    """Keeps images of your own in a file, which a configuration then names as its section ``data``::

        data = ip.save_images("mine.npz", images)
        run = ip.new("ddpm_ip_digits", data=data, model={"in_channels": 3})

    A run opens its images again whenever it continues, so they have to be where it can find them. ``data.image_size``
    is their own size.

    Args:
        path: a file that ends in ``.npz``. One that holds the same images already is left as it is.
        images: ``uint8`` (N, H, W, C), (N, C, H, W) or (N, H, W), C in 1..16, values 0..255; an array, or anything that
            NumPy makes one of, such as a tensor on the CPU.
        labels: whole numbers (N,), from 0; None if there are none.

    Returns:
        The configuration, with the absolute path.

    Raises:
        DataError: they are no such images or labels; or the file holds others, and is not touched.
        UserError: the file cannot be written.
    """
    path = expanded(path).absolute()
    if path.suffix != ".npz":
        raise DataError(f"{path} is to hold images, and does not end in .npz")
    found = np.asarray(images).view()  # so that the caller's own array can still be written to
    pixels = _channels_first(found, path, "auto")
    numbers = None if labels is None else _whole(np.array(labels), path)
    given = from_arrays(pixels, numbers, path.stem, pixels.shape[2:])
    data = Npz(root=str(path), image_size=pixels.shape[2:])
    if path.exists():
        if data.open(progress=False).fingerprint != given.fingerprint:
            raise DataError(
                f"{path} holds other images already, and was not touched: choose another name, or remove it"
            )
        return data
    arrays: dict[str, Any] = {"images": given.pixels, LAYOUT: np.array("channels_first")}
    arrays |= {} if given.labels is None else {LABELS: given.labels}
    with writing(path, error=DataError) as file:
        np.savez(file, **arrays)
    return data


def read_arrays(
    path: Path, layout: Layout = "auto", array: str | None = None
) -> tuple[UInt8, npt.NDArray[np.integer] | None]:
    """The images of an ``.npz`` or ``.npy`` file as they are, ``uint8`` (N, C, H, W), and the labels, if any.

    Args:
        path: the file.
        layout: see :class:`Npz`.
        array: the name of the images; see :class:`Npz`.

    Raises:
        DataError: the file is damaged, or declares more than it has; the array is not ``uint8`` images; it is not
            certain which axis holds the channels, or which array the images.
    """
    with _refusing(path):
        if path.suffix == ".npy":
            with opened(path) as file:
                images, labels, said = map_npy(file), None, "auto"
            if array is not None:
                raise ValueError(f"it holds one array, which has no name, and data.array asks for {quoted(array)}")
        else:
            with archive(path) as arrays:
                images, labels, said = _choose(arrays, path, array)
    return _channels_first(images, path, said if layout == "auto" else layout), labels


def read_labels(path: Path, given: str) -> Labels:
    """Labels that a configuration names.

    Args:
        path: the file of the images.
        given: an array of that file, if it is an ``.npz`` file; else, or if it ends in ``.npy``, a file of labels.

    Raises:
        DataError: they are not there, or no whole numbers or texts.
    """
    if path.suffix == ".npy" or given.endswith(".npy"):
        file = found_beside(given, path, "an .npy file of labels")
        with refusing(f"{file}: not a readable .npy file of labels"), opened(file) as open_file:
            mapped = map_npy(open_file)
            if mapped.nbytes > MAX_LABELS:
                raise ValueError(f"it has more than {MAX_LABELS:,} bytes")
            labels = np.array(mapped)
    else:
        file = path
        with _refusing(path), archive(path) as arrays:
            if given not in arrays.headers:
                there = ", ".join(map(shown, list(arrays.headers)[:SHOWN])) or "none"
                raise DataError(f"{path}: data.labels: there is no array {quoted(given)}; there is {there}")
            labels = arrays.read(given)
    if labels.dtype.kind in "US" and labels.ndim == 1:
        texts = [text if isinstance(text, str) else text.decode("latin-1") for text in labels.tolist()]
        return numbered(texts, str(file))
    whole = _whole(labels, file)
    if len(whole) and int(whole.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{file}: there is the label {whole.max()}, larger than int64 can hold")
    return Labels(whole.astype(np.int64), ())


def read_text(path: Path, name: str) -> str | None:
    """A text among the arrays of an ``.npz`` file.

    Args:
        path: the file; a ``.npy`` file has no names.
        name: of an array without axes that holds the text, of at most a million bytes.

    Returns:
        The text; None if there is no array of that name.

    Raises:
        DataError: the file is damaged, or the array is no such text.
    """
    if path.suffix == ".npy":
        return None
    with refusing(f"{path}: its array {name!r} cannot be read"), archive(path) as arrays:
        return arrays.text(name)


def array_names(path: Path) -> frozenset[str]:
    """The names of the arrays of an ``.npz`` file; none of anything else, and of what cannot be read."""
    if path.suffix != ".npz":
        return frozenset()
    try:
        with _refusing(path), archive(path) as arrays:
            return frozenset(arrays.headers)
    except DataError:  # whoever reads it says what is wrong with it
        return frozenset()


def read_array(path: Path, name: str, largest: int) -> npt.NDArray[Any]:
    """One array of an ``.npz`` file.

    Args:
        path: the file.
        name: of the array.
        largest: bytes that its numbers may take.

    Raises:
        DataError: it is not there, larger, damaged, or no plain numbers.
    """
    with refusing(f"{path}: its array {name!r} cannot be read"), archive(path) as arrays:
        header = arrays.headers.get(name)
        if header is None:
            raise ValueError("it is not an array of plain numbers" if name in arrays.headers else "it is not there")
        if header.n_bytes > largest:
            raise ValueError(f"it has more than {largest:,} bytes")
        return arrays.read(name)


def _refusing(path: Path) -> AbstractContextManager[None]:
    return refusing(f"{path}: not a readable .npz or .npy file")


def _choose(
    arrays: Archive, path: Path, array: str | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.integer] | None, str]:
    """Images, labels, and the layout that the file says."""
    headers = _pictures(arrays)
    images = _images(headers, path, array)
    labels = _labels_of(images, headers)
    said = arrays.text(LAYOUT)
    return arrays.read(images), _whole(arrays.read(labels), path) if labels else None, said or "auto"


def _pictures(arrays: Archive) -> dict[str, Header | None]:
    """The headers of arrays that can be images, or belong to them."""
    return {name: header for name, header in arrays.headers.items() if name not in (LAYOUT, SAMPLING)}


def _images(headers: Mapping[str, Header | None], path: Path, array: str | None) -> str:
    """The name of the images.

    Raises:
        DataError: no array, or more than one, can be the images; or the wanted one is not there.
    """
    there = list(headers.items())[:SHOWN]
    found = ", ".join(f"{shown(name)} ({header or 'no plain numbers'})" for name, header in there)
    if len(headers) > SHOWN:
        found += f" and {len(headers) - SHOWN} more"
    if array is not None:
        if array not in headers:
            raise DataError(f"{path}: data.array: there is no array {quoted(array)}; there is {found or 'none'}")
        return array
    possible = _possible(headers)
    if "images" in headers:
        return "images"
    if len(possible) == 1 or len(headers) == 1:
        return (possible or list(headers))[0]
    if not headers:
        raise DataError(f"{path}: there is no array in it")
    if not possible:
        raise DataError(f"{path}: no array in it is images, (N, H, W, C), (N, C, H, W) or (N, H, W); there is {found}")
    raise DataError(
        f"{path}: several arrays can be the images; there is {found}. Choose one by data.array, such as "
        f"data.array: {shown(possible[0])}, or for all who read the file, save that one under the name images: "
        "np.savez(path, images=...)"
    )


def _possible(headers: Mapping[str, Header | None]) -> list[str]:
    return [name for name, header in headers.items() if header and len(header.shape) in (3, 4)]


def _labels_of(images: str, headers: Mapping[str, Header | None]) -> str | None:
    """The name of the labels that obviously belong to the images."""
    mates = {"arr_0": "arr_1", "x": "y", "X": "Y"}
    names = [mates.get(images, ""), images.replace("images", LABELS)]
    names += [mates[images[0]] + images[1:]] if images.startswith(("x_", "X_")) else []
    for name in names:
        if name != images and name in headers:
            return name
    own, other = headers[images], headers.get(LABELS)
    fits = own is not None and other is not None and own.shape[:1] == other.shape[:1]
    return LABELS if images != LABELS and other and (fits or len(_possible(headers)) == 1) else None


def _channels_first(images: npt.NDArray[Any], path: Path, layout: str) -> UInt8:
    """The array as (N, C, H, W); a view, except that a copy is made of channels-last images in memory."""
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: the images are {images.dtype}, not uint8. Convert them and save again: values in [0, 1] by "
            "(x * 255).round().astype('uint8'), values in [-1, 1] by ((x + 1) * 127.5).round().astype('uint8')"
        )
    if 0 in images.shape[1:]:
        raise DataError(f"{path}: shape {images.shape} has no pixels")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and _layout(images.shape, layout, path) == "channels_last":
        moved = images.transpose(0, 3, 1, 2)
        return moved if isinstance(images, np.memmap) else np.ascontiguousarray(moved)
    if images.ndim == 4:
        return images
    raise DataError(f"{path}: shape {images.shape} is none of (N, H, W, C), (N, C, H, W), (N, H, W)")


def _layout(shape: tuple[int, ...], layout: str, path: Path) -> str:
    """Where the channels of four axes are: as it is said, or the only reading that there is.

    Raises:
        DataError: neither axis can be that of the channels, or both can and nobody says which.
    """
    axes = {"channels_last": 3, "channels_first": 1}
    if layout not in ("auto", *axes):
        raise DataError(f"{path}: its array {LAYOUT!r} says {quoted(layout)}; it can be {' or '.join(axes)}")
    if layout == "auto":
        usual = [name for name, axis in axes.items() if shape[axis] in (1, 3)]
        possible = usual[:1] or [name for name, axis in axes.items() if 1 <= shape[axis] <= MAX_CHANNELS]
    else:
        possible = [layout] if 1 <= shape[axes[layout]] <= MAX_CHANNELS else []
    if len(possible) == 1:
        return possible[0]
    if possible:
        raise DataError(
            f"{path}: shape {shape} can mean {shape[3]} channels of {shape[1]} x {shape[2]} pixels or {shape[1]} of "
            f"{shape[2]} x {shape[3]}: say which by data.layout, channels_last or channels_first. For all who read the "
            f"file, save it with the answer: np.savez(path, images=images, {LAYOUT}='channels_last')"
        )
    where = "the second or the last axis" if layout == "auto" else f"an axis as in {layout}"
    raise DataError(f"{path}: shape {shape} has no place for channels: 1 to {MAX_CHANNELS} of them, at {where}")


def _whole(labels: npt.NDArray[Any], path: Path) -> npt.NDArray[np.integer]:
    """The labels, (N,); Keras writes them as (N, 1)."""
    if labels.dtype.kind not in "iu":  # numpy counts spans of time among the integers
        raise DataError(f"{path}: the labels are {labels.dtype}, not integers")
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
