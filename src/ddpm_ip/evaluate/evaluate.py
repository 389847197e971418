"""Evaluating images: one pass through an extractor, all metrics, and under which protocol they were taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ddpm_ip.data import ImageSet
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate.collect import Pass, Wanted, collect, extract, reference_features
from ddpm_ip.evaluate.extractors.inception import Inception
from ddpm_ip.evaluate.features import Extractor, identity_of
from ddpm_ip.evaluate.images import Source, from_first, open_samples
from ddpm_ip.evaluate.metrics import COMPUTE, Features, subset_size, subset_sizes
from ddpm_ip.evaluate.statistics import TRUST, Statistics, check_use
from ddpm_ip.images import UInt8
from ddpm_ip.memory import enough_memory
from ddpm_ip.metric import INCEPTION, METRICS, Metric, chosen
from ddpm_ip.run.provenance import versions
from ddpm_ip.run.record import Evaluation, described, network, short
from ddpm_ip.run.row import ROW, row_label

Reference = ImageSet | Statistics


def evaluate(
    samples: Source | Path | str | Iterable[UInt8],
    reference: Reference,
    *,
    extractor: Extractor,
    metrics: Sequence[str],
    device: torch.device,
    n_images: int | None = None,
) -> Evaluation:
    """Compares samples with a reference set; :class:`Evaluator` with its own defaults.

    Args:
        samples: a folder of PNG files, an ``.npz`` or ``.npy``, Parquet; or blocks of ``uint8`` (B, C, H, W); or what
            :func:`ddpm_ip.evaluate.images.open_samples` made of them, who is told there what they are made of.
        reference: the real images, all of which are used; or statistics of their Inception features.
        extractor, metrics, device: see :class:`Evaluator`.
        n_images: how many samples, the first; None for all.

    Raises:
        UserError: the samples or the extractor cannot be used, or there are fewer images than were asked for.
    """
    source = samples if isinstance(samples, Source) else open_samples(samples)
    return Evaluator(extractor, metrics, device).evaluate(source, reference, n_images)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """How samples are evaluated.

    With several processes all of them call :meth:`evaluate` or :meth:`compare`, each with its own share of a
    generator's images (see :mod:`ddpm_ip.evaluate.images`).

    Args:
        extractor: makes the features.
        metrics: names of :data:`ddpm_ip.metric.METRICS`.
        device: where the extractor works.
        batch_size: images that go through the extractor together; plays no part in the numbers but for rounding. None
            for 256, on a CPU 32.

    Raises:
        ConfigError: a metric is not known, or the batch size is no number of images.
    """

    extractor: Extractor
    metrics: Sequence[str]
    device: torch.device
    batch_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(chosen(self.metrics)))
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"the batch size must be at least 1, got {self.batch_size}")

    def evaluate(self, source: Source, reference: Reference, n_images: int | None = None) -> Evaluation:
        """The numbers, on every process; see :func:`evaluate`."""
        comparison = self.compare(source, reference, n_images)
        evaluation: Evaluation = from_first(None if comparison is None else comparison.conclude(self.device))
        return evaluation

    def check(self, reference: ImageSet, n_images: int) -> None:
        """Raises before samples are made what :meth:`compare` would raise later; looks at two images of the reference.

        Raises:
            UserError: the extractor does not give what a metric needs, or there are too few images for it.
        """
        for metric in self._metrics:
            there = min(n_images, len(reference)) if metric.reference else n_images
            if (why := _too_few(metric, there)) is not None:
                raise ConfigError(why)
        extract(self.extractor, torch.tensor(reference.pixels[:2], device=self.device), self._wanted(False).kinds)

    def compare(self, source: Source, reference: Reference, n_images: int | None = None) -> Comparison | None:
        """The part of an evaluation that the processes have in common: the passes through the extractor.

        Returns:
            What the numbers follow from, on the first process; None on the others, which are not needed any more.

        Raises:
            UserError: as :func:`evaluate`; if features do not fit together, on every process.
        """
        with enough_memory(self._too_large):
            return self._compare(source, reference, n_images)

    def _too_large(self) -> str:
        return (
            f"there is too little memory for the features of {self.over_samples.batch_size} images at once "
            f"({self.extractor.name}): choose a smaller --batch_size, or a device that nothing else is using"
        )

    def _compare(self, source: Source, reference: ImageSet | Statistics, n_images: int | None) -> Comparison | None:
        _check_count(source, n_images)
        if isinstance(reference, Statistics):
            genuine = isinstance(self.extractor, Inception)
            check_use(reference.path, INCEPTION if genuine else f"{self.extractor.name} of your own", self.metrics)
        # The folder goes once the passes are over: what is mapped stays readable for as long as somebody holds it, and
        # nothing that happens later can leave files behind. (Only NFS would object.)
        with TemporaryDirectory(prefix="ddpm-ip-", ignore_cleanup_errors=True) as scratch:
            folders = [Path(scratch, name) for name in ("fake", "real")]
            for folder in folders:
                folder.mkdir()
            fake = collect(source, self.over_samples, folders[0], n_images)
            real = None
            if any(metric.reference for metric in self._metrics):
                real = self._of_reference(reference, folders[1])
        unfit = from_first(None if fake is None else self._unfit(fake, real))
        if unfit is not None:
            raise DataError(unfit)
        if fake is None:
            return None
        named = None if isinstance(self.extractor, Inception) else self.extractor.name
        names = {metric.name: metric.names(named) for metric in self._metrics}
        protocol = self._protocol(source, reference, fake, real)
        return Comparison(names, fake, real, protocol, self._warnings(reference, fake, real))

    @property
    def over_samples(self) -> Pass:
        """How samples go through the extractor."""
        return self._pass(of_reference=False)

    @property
    def over_reference(self) -> Pass:
        """How the reference goes through it."""
        return self._pass(of_reference=True)

    def _pass(self, of_reference: bool) -> Pass:
        batch_size = self.batch_size or (32 if self.device.type == "cpu" else 256)
        return Pass(self.extractor, self._wanted(of_reference), batch_size, self.device)

    @property
    def _metrics(self) -> list[Metric]:
        return [METRICS[name] for name in self.metrics]

    def _wanted(self, of_reference: bool) -> Wanted:
        """What a pass over samples, or over the reference, must leave."""
        needed = [metric for metric in self._metrics if metric.reference or not of_reference]
        rows, moments = (frozenset(m.features for m in needed if m.rows is kept) for kept in (True, False))
        return Wanted(moments, rows)

    def _unfit(self, fake: Features, real: Features | None) -> str | None:
        """Why these features do not give what is asked for, or None if they do."""
        for metric in self._metrics:
            there = fake.count
            if metric.reference and real is not None:
                if (why := _other_widths(fake, real, metric.features)) is not None:
                    return why
                there = min(fake.count, real.count)
            if (why := _too_few(metric, there)) is not None:
                return why
        return None

    def _of_reference(self, reference: Reference, scratch: Path) -> Features | None:
        if isinstance(reference, Statistics):
            return reference.features
        return reference_features(reference, self.over_reference, scratch)

    def _protocol(self, source: Source, reference: Reference, fake: Features, real: Features | None) -> dict[str, Any]:
        protocol: dict[str, Any] = {
            "metrics": sorted(self.metrics),
            "extractor": self.extractor.name,
            "extractor_identity": identity_of(self.extractor),
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
            protocol |= {"reference": reference.name, "reference_sha256": reference.fingerprint}
            if isinstance(reference, Statistics):
                protocol |= {"reference_statistics": TRUST}
            else:
                protocol |= {"n_reference": len(reference), "reference_shape": list(real.shape)}
            subsets = [metric.name for metric in self._metrics if metric.subset]
            protocol |= {f"{name}_subset_size": subset_size(name, fake.count, real.count) for name in subsets}
        return {**protocol, "line": _line(protocol)}

    def _warnings(self, reference: Reference, fake: Features, real: Features | None) -> list[str]:
        """Caveats for comparing the numbers with others."""
        found = []
        for kind, moments in fake.moments.items():
            fewest = min(fake.count, real.count) if real is not None else fake.count
            if fewest <= moments.dimensions:
                found.append(
                    f"{fewest:,} images are too few for {moments.dimensions:,} features ({kind}): their covariance is "
                    "singular, and the Fréchet distance far too large"
                )
        if isinstance(self.extractor, Inception):
            found += _fewer_than_published(self._metrics, fake.count)
        found += [why for metric in self._metrics if metric.extrapolated and (why := _no_line(metric, fake))]
        if real is not None:
            found += [TRUST] if isinstance(reference, Statistics) else _mismatches(reference, fake, real)
            for metric in self._metrics:
                if metric.subset and (size := subset_size(metric.name, fake.count, real.count)) < metric.subset:
                    found.append(f"{metric.name} is over subsets of {size}, not {metric.subset:,} images")
        if fake.shape[0] == 1 and not getattr(self.extractor, "gray", False):
            found.append(f"gray images; each was repeated three times for {self.extractor.name}")
        return found


@dataclass(frozen=True, eq=False)
class Comparison:
    """Samples and a reference set as features: all that the numbers follow from.

    Nothing but arrays and plain values, so that a thread may conclude while the main one trains: nothing on a GPU is
    held on to, no file has to be removed, and every :class:`UserError` was raised before.

    Attributes:
        names: of the values, by metric, in the order in which they are computed.
        fake, real: the features of the samples and of the reference; no ``real`` where no metric needs it.
        protocol, warnings: see :class:`ddpm_ip.run.record.Evaluation`.
    """

    names: Mapping[str, tuple[str, ...]]
    fake: Features
    real: Features | None
    protocol: dict[str, Any]
    warnings: list[str]

    def conclude(self, device: torch.device) -> Evaluation:
        """The numbers, which may take a minute. Uses no random numbers but its own.

        Args:
            device: where distances between images are taken, and what is sorted or summed over all of them; the rest
                is computed by NumPy.
        """
        values: dict[str, float] = {}
        for metric, names in self.names.items():
            numbers = COMPUTE[metric](self.fake, self.fake if self.real is None else self.real, device)
            values |= dict(zip(names, numbers, strict=True))
        return Evaluation(values, self.protocol, self.warnings)


def _check_count(source: Source, n_images: int | None) -> None:
    if n_images is not None and n_images < 1:
        raise ConfigError(f"the number of images must be at least 1, got {n_images}")
    if n_images and source.count is not None and source.count < n_images:
        raise DataError(f"{source.name}: {n_images:,} images were asked for, and there are {source.count:,}")


def _too_few(metric: Metric, there: int) -> str | None:
    if there >= metric.fewest:
        return None
    return f"{metric.name} needs at least {metric.fewest} images, and there are {there}"


def _other_widths(fake: Features, real: Features, kind: str) -> str | None:
    ours, theirs = (f.moments[kind].dimensions if kind in f.moments else f.rows[kind].shape[1] for f in (fake, real))
    if ours == theirs:
        return None
    if not real.shape:
        return f"samples have {ours:,} features ({kind}), and the statistics of the reference are of {theirs:,}"
    return (
        f"samples of {fake.shape} have {ours:,} features ({kind}), reference images of {real.shape} have "
        f"{theirs:,}: bring them to one size, or take an extractor that resizes"
    )


def _no_line(metric: Metric, fake: Features) -> str | None:
    smallest, width = subset_sizes(fake.count)[0], fake.rows[metric.features].shape[1]
    if smallest >= 2 * width:  # an estimate: below the number of features the covariance is singular
        return None
    enough = subset_sizes(20 * width)[0] >= 2 * width
    cure = f"take {20 * width:,} images" if enough else "take an extractor of fewer"
    return (
        f"{metric.name} is extrapolated from subsets of {smallest:,} images and more, too few for {width:,} features "
        f"to lie on a line: {cure}"
    )


def _fewer_than_published(metrics: Sequence[Metric], count: int) -> list[str]:
    found = []
    for published in dict.fromkeys(m.published for m in metrics if m.published is not None and count < m.published):
        names = " and ".join(value.inception for m in metrics if m.published == published for value in m.values)
        found.append(
            f"{names}: a smaller number of images gives a larger value. Published ones are of {published:,} "
            f"images, this of {count:,}"
        )
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


def _line(p: Mapping[str, Any]) -> str:
    """A protocol in one line."""
    shape = " x ".join(map(str, p["image_shape"]))
    extractor = described(p["extractor"], p["extractor_identity"])
    if (whose := network(p["extractor"], p["versions"])) is not None:
        extractor += f" of {whose}"
    parts = [extractor, f"{p['n_images']:,} images {shape}, rounding {p['rounding']}"]
    if "reference" in p:
        what = "statistics taken on trust," if "n_reference" not in p else f"{p['n_reference']:,} of"
        parts.append(f"against {what} {p['reference']} (sha256 {short(p['reference_sha256'])})")
    about = dict(p["sampling"])
    try:
        made = [row_label(about)]
    except (KeyError, TypeError, ValueError, AttributeError):  # a file that says nothing of a sampler, or nonsense
        made = []
    told = {key: value for key, value in about.items() if not made or key not in ROW}
    made += [f"{key} {short(value)}" for key, value in told.items() if isinstance(value, (str, int, float))]
    return "; ".join([*parts, *([", ".join(made)] if made else [])])
