"""Which files of a folder are taken for images, and what is said of the others: nothing that looks like an image is
passed over in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_ip.data.decode import formats
from ddpm_ip.data.source import head

# fmt: off
SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc",
})
HEIF_SUFFIXES, AVIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"}), frozenset({".avif", ".avifs"})
# Images for people, which are not read here: raw photographs, drawings, scientific and game formats. TGA has no
# signature, so that its decoder would be fed whatever has the name.
UNREAD = frozenset({
    ".3fr", ".ai", ".arw", ".bpg", ".cr2", ".cr3", ".crw", ".cur", ".dcm", ".dcr", ".dds", ".dicom", ".djvu", ".dng",
    ".emf", ".eps", ".erf", ".exr", ".fits", ".flif", ".hdr", ".icns", ".ico", ".iff", ".jls", ".jng", ".jxl", ".jxr",
    ".kdc", ".mng", ".mrw", ".nef", ".nrw", ".orf", ".pam", ".pcx", ".pef", ".pfm", ".pict", ".psd", ".qoi", ".raf",
    ".ras", ".raw", ".rgb", ".rgba", ".rw2", ".sgi", ".sr2", ".srw", ".svg", ".svgz", ".tga", ".vda", ".vst", ".wbmp",
    ".wdp", ".wmf", ".x3f", ".xbm", ".xcf", ".xpm",
})
# No images, whatever they begin with; they are not opened.
OTHER = frozenset({
    ".7z", ".bz2", ".gz", ".cfg", ".csv", ".db", ".doc", ".docx", ".h5", ".htm", ".html", ".ini", ".ipynb", ".json",
    ".jsonl", ".log", ".lst", ".mat", ".md", ".mp3", ".mp4", ".npy", ".npz", ".parquet", ".pdf", ".pkl", ".pt", ".pth",
    ".py", ".rst", ".safetensors", ".sh", ".tar", ".toml", ".tsv", ".txt", ".wav", ".xml", ".xz", ".yaml", ".yml",
    ".zip",
})
# fmt: on

# What files begin with: (offset, bytes, format, the suffix that is taken).
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG", ".png"),
    (0, b"\xff\xd8\xff", "JPEG", ".jpg"),
    (0, b"GIF87a", "GIF", ".gif"),
    (0, b"GIF89a", "GIF", ".gif"),
    (8, b"WEBP", "WebP", ".webp"),
    (0, b"II*\0", "TIFF", ".tif"),
    (0, b"MM\0*", "TIFF", ".tif"),
    (0, b"II+\0", "TIFF", ".tif"),
    (0, b"MM\0+", "TIFF", ".tif"),
    (0, b"\0\0\0\x0cjP  \r\n", "JPEG 2000", ".jp2"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", ".j2k"),
    (4, b"ftypavif", "AVIF", ".avif"),
    (4, b"ftypavis", "AVIF", ".avif"),
    *((4, b"ftyp" + brand, "HEIF", ".heic") for brand in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")),
    (0, b"8BPS", "Photoshop", ""),
    (0, b"\xff\x0a", "JPEG XL", ""),
    (0, b"\0\0\0\x0cJXL \r\n", "JPEG XL", ""),
    (0, b"\x76\x2f\x31\x01", "OpenEXR", ""),
    (0, b"DDS |\0\0\0", "DDS", ""),
    (0, b"qoif", "QOI", ""),
    (0, b"\0\0\x01\0", "icon", ""),
    (128, b"DICM", "DICOM", ""),
)
# In a folder of samples: what says of what they are made, and the picture of the first, which is no sample itself.
MARK, GRID = "sampling.json", "grid.png"
_HEAD = 132  # bytes that are looked at
_NAMED = 5  # files that are named of each kind
_HEIF_ADVICE = "pip install pillow-heif, or convert them to PNG"


@dataclass(frozen=True)
class PassedOver:
    """Files of one kind that were found among the images and not taken.

    Attributes:
        kind: what they are.
        count: how many.
        names: of the first, relative to the folder.
        advice: how to use them; empty if they are no images.
    """

    kind: str
    count: int
    names: tuple[str, ...]
    advice: str = ""

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.names) else ""
        return f"{self.count:,} {self.kind} ({', '.join(self.names)}{more}){': ' * bool(self.advice)}{self.advice}"


def is_taken(name: str) -> bool:
    """Whether a file counts as an image, by its name: it is not hidden, and its suffix is one that can be decoded."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return False
    readable = ("HEIF" in formats() and suffix in HEIF_SUFFIXES) or ("AVIF" in formats() and suffix in AVIF_SUFFIXES)
    return suffix in SUFFIXES or readable


def passed_over(paths: Iterable[Path], root: Path) -> tuple[PassedOver, ...]:
    """What to say about files that are not taken, those that look like images first.

    Args:
        paths: files for which :func:`is_taken` is False, and folders that are links.
        root: the folder below which they lie.
    """
    kinds: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(paths):
        kinds.setdefault(_kind(path), []).append(path)
    found = [
        PassedOver(kind, len(some), tuple(str(path.relative_to(root)) for path in some[:_NAMED]), advice)
        for (kind, advice), some in kinds.items()
    ]
    return tuple(sorted(found, key=lambda one: (not one.advice, -one.count, one.kind)))


def lookalikes(passed: Sequence[PassedOver]) -> str:
    """One line on those that look like images; empty if there are none."""
    images = [one for one in passed if one.advice]
    count = sum(one.count for one in images)
    files = "1 file looks" if count == 1 else f"{count:,} files look"
    return f"{files} like images and were passed over: {'; '.join(map(str, images))}" if images else ""


def _kind(path: Path) -> tuple[str, str]:
    """What a file is, and how to use it; no advice if it is not an image."""
    suffix = path.suffix.lower()
    other = ("other files", "")
    if path.name.startswith(".") or suffix in OTHER:
        return other
    if suffix in HEIF_SUFFIXES or suffix in AVIF_SUFFIXES:
        return f"{suffix} files", _HEIF_ADVICE
    if suffix in UNREAD:
        return f"{suffix} files", "convert them to PNG"
    if path.is_symlink() and os.path.isdir(path):
        return "links to folders", "links are not followed: give the folder itself, or copy it"
    if found := _form(head(path, _HEAD)):
        return f"{found[0]} images without a usual suffix", _advice(*found)
    return other


def _form(begins: bytes) -> tuple[str, str] | None:
    """The format of a file with this beginning, and the suffix that it should have."""
    for offset, signature, form, taken in _SIGNATURES:
        if begins[offset:].startswith(signature):
            return form, taken
    if begins[:2] == b"BM" and begins[6:10] == bytes(4):
        return "BMP", ".bmp"
    return ("PNM", ".ppm") if re.match(rb"P[1-6]\s", begins) else None


def _advice(form: str, taken: str) -> str:
    if form in ("HEIF", "AVIF") and not is_taken(f"x{taken}"):
        return _HEIF_ADVICE
    return f"rename them to end in {taken}" if taken else "convert them to PNG"
