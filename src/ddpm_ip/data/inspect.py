"""What is in a set of images: a page of text and a contact sheet, for a person to look at before training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ddpm_ip.data.decode import UInt8
from ddpm_ip.data.imageset import ImageSet, Int64, chunks
from ddpm_ip.data.labels import without_images
from ddpm_ip.images import grid, save_png
from ddpm_ip.plain import shown

SHOWN = 20  # original sizes listed one by one, and classes


def inspect(images: ImageSet, contact_sheet: Path, n: int = 100) -> str:
    """Describes the set, and draws ``n`` of its images.

    Args:
        images: the set; open it with ``on_bad="skip"`` to learn of unusable files here.
        contact_sheet: the PNG file to write; its folder is made if need be.
        n: how many images to draw, chosen at random but the same ones each time, in the order of the set.

    Returns:
        Lines of text: number, channels x height x width, labels, mean and standard deviation (of values in [0, 1]),
        range, exact duplicates, original sizes, fingerprint, each unusable image with the reason, and what was passed
        over.
    """
    save_png(grid(_choose(images.pixels, n)), contact_sheet)
    lines = [
        f"{images.name}: {len(images):,} images, {' x '.join(map(str, images.shape))}, uint8",
        f"fingerprint       {images.fingerprint}",
        *_value_lines(_histogram(images.pixels)),
        f"exact duplicates  {_duplicates(images.pixels):,}",
        *_label_lines(images),
        *_size_lines(images),
        f"unusable          {len(images.bad):,}",
        *(f"  {bad}" for bad in images.bad),
        *_passed_over_lines(images),
        *([f"16 bits           {images.hint}"] if images.hint else []),
        f"contact sheet     {contact_sheet}",
    ]
    return "\n".join(lines)


def _choose(pixels: UInt8, n: int) -> UInt8:
    chosen = np.random.default_rng(0).choice(len(pixels), min(n, len(pixels)), replace=False)
    return np.asarray(pixels[np.sort(chosen)])


def _histogram(pixels: UInt8) -> Int64:
    """How often each value occurs, (C, 256): mean, variance and range follow from it without rounding."""
    counts = np.zeros((pixels.shape[1], 256), dtype=np.int64)
    for chunk in chunks(pixels):
        for channel in range(pixels.shape[1]):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    return counts


def _value_lines(histogram: Int64) -> list[str]:
    levels = np.arange(256) / 255.0
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    used = np.flatnonzero(histogram.sum(axis=0))
    return [
        f"mean              {_numbers(mean)}",
        f"std               {_numbers(std)}",
        f"min, max          {used[0]}, {used[-1]}",
    ]


def _numbers(values: np.ndarray) -> str:
    return "  ".join(f"{value:.4f}" for value in values)


def _duplicates(pixels: UInt8) -> int:
    """Images that equal an earlier one in every pixel."""
    seen = {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for chunk in chunks(pixels) for image in chunk}
    return len(pixels) - len(seen)


def _label_lines(images: ImageSet) -> list[str]:
    if images.labels is None:
        return ["labels            none"]
    numbers, counts = np.unique(images.labels, return_counts=True)
    lines = [f"labels            {len(numbers)} classes, {counts.min():,} to {counts.max():,} images each"]
    needed = int(numbers.max()) + 1
    if numbers.min() < 0:
        lines.append(f"classes.count     none: there is the label {numbers.min()}, and classes begin at 0")
    elif needed > len(numbers):
        lines.append(f"classes.count     {needed}; {without_images(images.labels, needed)}")
    for number, count in list(zip(numbers, counts, strict=True))[:SHOWN]:
        known = shown(images.classes[number]) if 0 <= number < len(images.classes) else ""
        lines.append(f"  {number:<4} {count:>9,}  {known}".rstrip())
    return lines + _more(len(numbers))


def _size_lines(images: ImageSet) -> list[str]:
    if not images.original_sizes:
        return []
    shorter = np.repeat([min(w, h) for w, h, _ in images.original_sizes], [n for *_, n in images.original_sizes])
    enlarged = sum(n for width, height, n in images.original_sizes if width < images.width or height < images.height)
    low, middle, high = np.percentile(shorter, [0, 50, 100])
    lines = [
        f"original sizes    {len(images.original_sizes):,} different; shorter side {low:.0f} to {high:.0f}, "
        f"median {middle:.0f}; {enlarged:,} images were enlarged"
    ]
    lines += [f"  {f'{w} x {h}':<14} {n:>9,}" for w, h, n in images.original_sizes[:SHOWN]]
    return lines + _more(len(images.original_sizes))


def _passed_over_lines(images: ImageSet) -> list[str]:
    count = sum(one.count for one in images.passed_over if one.advice)
    return [f"passed over       {count:,} that look like images", *(f"  {one}" for one in images.passed_over)]


def _more(n: int) -> list[str]:
    return [f"  ... and {n - SHOWN:,} more"] if n > SHOWN else []
