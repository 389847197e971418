"""Evaluating images: one pass through an extractor, all metrics, and under which protocol they were taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ddpm_ip.data import ImageSet
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate import metrics as m
from ddpm_ip.evaluate.collect import Features, Wanted, collect, extract, reference_features
from ddpm_ip.evaluate.extractors.inception import Inception
from ddpm_ip.evaluate.features import Extractor, described, short
from ddpm_ip.evaluate.images import Source, from_first, open_samples
from ddpm_ip.images import UInt8
from ddpm_ip.run.provenance import versions

PUBLISHED = 50_000  # images behind a published FID


@dataclass(frozen=True)
class Metric:
    """What a metric needs, and what it is called in Inception features and in others.

    Args:
        kind: of the features.
        rows: whether it needs the features themselves, not only their moments.
        binary: whether it needs those of the reference too.
        inception, other: names of its values; of another extractor, ``-name`` is put behind the first word.
        least: images that it needs.
    """

    kind: str
    rows: bool
    binary: bool
    inception: tuple[str, ...]
    other: tuple[str, ...]
    least: int

    def names(self, extractor: Extractor) -> tuple[str, ...]:
        """Only the Inception network itself gives an FID, whatever an extractor is called."""
        if isinstance(extractor, Inception):
            return self.inception
        words = (name.partition("_") for name in self.other)
        return tuple(f"{word}-{extractor.name}{bar}{rest}" for word, bar, rest in words)


METRICS = {
    "fid": Metric("pool", False, True, ("FID",), ("FD",), 2),
    "isc": Metric("logits", True, False, ("IS", "IS_std"), ("CS", "CS_std"), m.SPLITS),
    "kid": Metric("pool", True, True, ("KID", "KID_std"), ("KD", "KD_std"), 2),
    "prc": Metric("pool", True, True, ("precision", "recall"), ("precision", "recall"), m.NEIGHBOURS + 1),
    "sfid": Metric("spatial", False, True, ("sFID",), ("sFD",), 2),
}


@dataclass(frozen=True)
class Evaluation:
    """Numbers and what they mean.

    Attributes:
        values: by name, such as ``{"FID": 3.2, "IS": 9.5, "IS_std": 0.1}`` or ``{"FD-pixels": 0.4}``.
        protocol: everything the numbers depend on; ``line`` says it in one line.
        warnings: what speaks against comparing the numbers with others.
    """

    values: dict[str, float]
    protocol: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """For a person."""
        shown = [name for name in self.values if not name.endswith("_std")]
        width = max(20, *map(len, shown))
        lines = []
        for name in shown:
            spread = self.values.get(f"{name}_std")
            lines.append(
                f"{name:<{width}} {self.values[name]:.6g}" + (f" ± {spread:.3g}" if spread is not None else "")
            )
        notes = [("protocol", self.protocol["line"]), *(("WARNING", text) for text in self.warnings)]
        return "\n".join([*lines, *(f"{word:<{width}} {text}" for word, text in notes)])


def evaluate(
    samples: Source | Path | str | Iterable[UInt8],
    reference: ImageSet,
    *,
    extractor: Extractor,
    metrics: Sequence[str],
    n_images: int | None = None,
    batch_size: int = 256,
    device: torch.device,
    about: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Compares samples with a reference set.

    With several processes all of them call this, each with its own share of a generator's images (see
    :mod:`ddpm_ip.evaluate.images`), and all get the result.

    Args:
        samples: a folder of PNG files, an ``.npz`` or ``.npy``, Parquet; or blocks of ``uint8`` (B, C, H, W); or what
            :func:`ddpm_ip.evaluate.images.open_samples` made of them.
        reference: the real images, all of which are used.
        extractor: makes the features.
        metrics: of :data:`METRICS`.
        n_images: how many samples, the first; None for all.
        batch_size: images that go through the extractor together; plays no part in the numbers but for rounding.
        device: where the extractor works.
        about: what the samples are made of, for the protocol; by default what their ``sampling.json`` says.

    Raises:
        UserError: the samples or the extractor are of no use, or there are fewer images than were asked for.
    """
    source = samples if isinstance(samples, Source) else open_samples(samples, about)
    comparison = compare(
        source, reference, extractor=extractor, metrics=metrics, n_images=n_images, batch_size=batch_size, device=device
    )
    evaluation: Evaluation = from_first(None if comparison is None else comparison.conclude(device))
    return evaluation


@dataclass(frozen=True, eq=False)
class Comparison:
    """Samples and a reference set as features: all that the numbers follow from.

    Nothing but arrays and plain values, so that a thread may conclude while the main one trains: nothing on a GPU is
    held on to, no file has to be removed, and every :class:`UserError` was raised before.

    Attributes:
        names: of the values, by metric, in the order in which they are computed.
        fake, real: the features of the samples and of the reference; no ``real`` where no metric needs it.
        protocol, warnings: see :class:`Evaluation`.
    """

    names: Mapping[str, tuple[str, ...]]
    fake: Features
    real: Features | None
    protocol: dict[str, Any]
    warnings: list[str]

    def conclude(self, device: torch.device) -> Evaluation:
        """The numbers, which may take a minute. Uses no random numbers but its own.

        Args:
            device: where the distances of precision and recall are taken; all else is computed by NumPy.
        """
        values: dict[str, float] = {}
        for metric, names in self.names.items():
            values |= dict(zip(names, _COMPUTE[metric](self.fake, self.real, device), strict=True))
        return Evaluation(values, self.protocol, self.warnings)


def compare(
    source: Source,
    reference: ImageSet,
    *,
    extractor: Extractor,
    metrics: Sequence[str],
    n_images: int | None = None,
    batch_size: int = 256,
    device: torch.device,
) -> Comparison | None:
    """The part of :func:`evaluate` that the processes have in common: the passes through the extractor.

    Returns:
        What the numbers follow from, on the first process; None on the others, which are not needed any more.

    Raises:
        UserError: as :func:`evaluate`; that features do not fit together, on every process.
    """
    asked = chosen(metrics)
    _check_count(source, asked, n_images, batch_size)
    # The folder goes once the passes are over: what is mapped stays readable for as long as somebody holds it, and
    # nothing that happens later can leave files behind. (Only NFS would object.)
    with TemporaryDirectory(prefix="ddpm-ip-", ignore_cleanup_errors=True) as scratch:
        folders = [Path(scratch, name) for name in ("fake", "real")]
        for folder in folders:
            folder.mkdir()
        wanted = _wanted(asked, binary=False)
        fake = collect(source, extractor, wanted, folders[0], batch_size, device, n_images)
        real = None
        if any(METRICS[name].binary for name in asked):
            wanted = _wanted(asked, binary=True)
            real = reference_features(reference, extractor, wanted, folders[1], batch_size, device)
    unfit = from_first(None if fake is None else _unfit(asked, fake, real))
    if unfit is not None:
        raise DataError(unfit)
    if fake is None:
        return None
    return Comparison(
        {name: METRICS[name].names(extractor) for name in asked},
        fake,
        real,
        _protocol(source, reference, extractor, asked, fake, real),
        _warnings(reference, extractor, asked, fake, real),
    )


def chosen(metrics: Sequence[str]) -> list[str]:
    """The metrics, each once, in the order in which they are named.

    Raises:
        ConfigError: one is not known.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise ConfigError(f"metrics must be of {', '.join(METRICS)}; got {', '.join(unknown) or 'none'}")
    return list(dict.fromkeys(metrics))


def check(
    reference: ImageSet, *, extractor: Extractor, metrics: Sequence[str], n_images: int, device: torch.device
) -> None:
    """Says before samples are made what :func:`compare` would say after that; looks at two images of the reference.

    Raises:
        UserError: the extractor does not give what a metric needs, or there are too few images for it.
    """
    asked = chosen(metrics)
    for name in asked:
        fewest = min(n_images, len(reference)) if METRICS[name].binary else n_images
        if fewest < METRICS[name].least:
            raise ConfigError(f"{name} needs at least {METRICS[name].least} images, and there are {fewest}")
    extract(extractor, torch.tensor(reference.pixels[:2], device=device), _wanted(asked, binary=False).kinds)


def _check_count(source: Source, asked: Sequence[str], n_images: int | None, batch_size: int) -> None:
    for name, value in (("the number of images", n_images), ("the batch size", batch_size)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if n_images and source.count is not None and source.count < n_images:
        raise DataError(f"{source.name}: {n_images:,} images were asked for, and there are {source.count:,}")


def _wanted(asked: Sequence[str], binary: bool) -> Wanted:
    """What a pass over samples, or over the reference, must leave."""
    needed = [METRICS[name] for name in asked if METRICS[name].binary or not binary]
    rows, moments = (frozenset(n.kind for n in needed if n.rows is kept) for kept in (True, False))
    return Wanted(moments, rows)


def _unfit(asked: Sequence[str], fake: Features, real: Features | None) -> str | None:
    """Why these features do not give what is asked for, or None if they do."""
    for name in asked:
        metric = METRICS[name]
        fewest = fake.count
        if metric.binary and real is not None:
            if (why := _other_widths(fake, real, metric.kind)) is not None:
                return why
            fewest = min(fake.count, real.count)
        if fewest < metric.least:
            return f"{name} needs at least {metric.least} images, and there are {fewest}"
    return None


def _other_widths(fake: Features, real: Features, kind: str) -> str | None:
    ours, theirs = (f.moments[kind].dimensions if kind in f.moments else f.rows[kind].shape[1] for f in (fake, real))
    if ours == theirs:
        return None
    return (
        f"samples of {fake.shape} have {ours:,} features ({kind}), reference images of {real.shape} have "
        f"{theirs:,}: bring them to one size, or take an extractor that resizes"
    )


def _frechet(kind: str) -> Callable[..., tuple[float, ...]]:
    return lambda fake, real, device: (m.frechet_distance(fake.moments[kind], real.moments[kind]),)


def _subset(fake: Features, real: Features) -> int:
    return min(m.SUBSET_SIZE, fake.count, real.count)


_COMPUTE: dict[str, Callable[..., tuple[float, ...]]] = {
    "fid": _frechet("pool"),
    "isc": lambda fake, real, device: m.class_score(fake.rows["logits"]),
    "kid": lambda fake, real, device: m.kernel_distance(fake.rows["pool"], real.rows["pool"], _subset(fake, real)),
    "prc": lambda fake, real, device: m.precision_recall(fake.rows["pool"], real.rows["pool"], device),
    "sfid": _frechet("spatial"),
}


def _warnings(
    reference: ImageSet, extractor: Extractor, asked: Sequence[str], fake: Features, real: Features | None
) -> list[str]:
    """What speaks against comparing the numbers with others."""
    found = []
    for kind, moments in fake.moments.items():
        fewest = min(fake.count, real.count) if real is not None else fake.count
        if fewest <= moments.dimensions:
            found.append(
                f"{fewest:,} images are too few for {moments.dimensions:,} features ({kind}): their covariance is "
                "singular, and the Fréchet distance far too large"
            )
    if isinstance(extractor, Inception) and {"fid", "sfid"} & {*asked} and fake.count < PUBLISHED:
        found.append(
            f"FID falls with the number of images: published ones are of {PUBLISHED:,}, this of {fake.count:,}"
        )
    if real is not None:
        found += _mismatches(reference, fake, real)
        if "kid" in asked and _subset(fake, real) < m.SUBSET_SIZE:
            found.append(f"the kernel distance is over subsets of {_subset(fake, real)}, not {m.SUBSET_SIZE:,} images")
    if fake.shape[0] == 1 and not getattr(extractor, "gray", False):
        found.append(f"gray images; each was repeated three times for {extractor.name}")
    return found


def _mismatches(reference: ImageSet, fake: Features, real: Features) -> list[str]:
    found = []
    if fake.shape != real.shape:
        ours, theirs = (" x ".join(map(str, features.shape)) for features in (fake, real))
        found.append(f"the samples are {ours}, the reference is {theirs} (channels, height, width)")
    width, height = reference.width, reference.height
    if resized := sum(n for w, h, n in reference.original_sizes if (w, h) != (width, height)):
        found.append(f"{resized:,} images of the reference were resized to {width} x {height} pixels")
    return found


def _protocol(
    source: Source,
    reference: ImageSet,
    extractor: Extractor,
    asked: Sequence[str],
    fake: Features,
    real: Features | None,
) -> dict[str, Any]:
    protocol: dict[str, Any] = {
        "metrics": sorted(asked),
        "extractor": extractor.name,
        "extractor_identity": dict(extractor.identity()),
        "samples": source.name,
        "samples_path": source.path,
        "n_images": fake.count,
        "image_shape": list(fake.shape),
        # What is evaluated is uint8 already; the project's own samples say how they became that.
        "rounding": "to the nearest of 256 levels" if source.about else "unknown: the images came as uint8",
        "sampling": dict(source.about),
        "versions": versions("ddpm-ip", "torch", "torch-fidelity"),
    }
    if real is not None:
        protocol |= {
            "reference": reference.name,
            "reference_sha256": reference.fingerprint,
            "n_reference": len(reference),
            "reference_shape": list(real.shape),
        }
        if "kid" in asked:
            protocol["kid_subset_size"] = _subset(fake, real)
    return {**protocol, "line": _line(protocol)}


def _line(p: Mapping[str, Any]) -> str:
    """A protocol in one line."""
    shape = " x ".join(map(str, p["image_shape"]))
    extractor = described(p["extractor"], p["extractor_identity"])
    parts = [extractor, f"{p['n_images']:,} images {shape}, rounding {p['rounding']}"]
    if "reference" in p:
        parts.append(f"against {p['n_reference']:,} of {p['reference']} (sha256 {short(p['reference_sha256'])})")
    sampling = [f"{key} {short(value)}" for key, value in p["sampling"].items() if isinstance(value, (str, int, float))]
    return "; ".join([*parts, *([", ".join(sampling)] if sampling else [])])
