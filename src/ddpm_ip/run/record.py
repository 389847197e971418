"""Measured numbers and how images were made, as files say it: one writer, and one reader for all versions' files.

An *evaluation* is what one look at a set of images gave; its numbers share a protocol. ``evaluation.json`` is a list of
evaluations; a line of ``evaluations.jsonl`` and a cell of a table are one each. A *record* is one number with all that
it depends on; ``results.json`` and the ``results`` of ``table.json`` are lists of records. :func:`records` reads all of
these, also what version 0.1 wrote.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.metric import DEVIATION, INCEPTION, find, is_deviation
from ddpm_ip.plain import shown
from ddpm_ip.run.row import ROW, row_label, short_label

COMPUTED = ("block", "precision", "fast", "device")  # of facts about sampling: what moves an image by rounding
SECTIONS = "sections"  # the spacing of guided-diffusion's strings, which say steps and spacing at once
AGAIN = "Evaluate the run again"
MOST_SHOWN = 30  # differences that are told one by one
MOST_STEPS = 10**9  # more than any walk has


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Numbers that were measured on the same images, and what they mean; ``print`` shows all of it.

    Attributes:
        values: by name, such as ``{"FID": 3.2, "IS": 9.5, "IS_std": 0.1}`` or ``{"FD-pixels": 0.4}``.
        protocol: everything the numbers depend on; ``line`` says it in one line.
        warnings: caveats for comparing the numbers with others.
    """

    values: dict[str, float]
    protocol: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        return f"<evaluation: {', '.join(f'{name} {value:.6g}' for name, value in self.values.items())}>"

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    def text(self) -> str:
        """For a person."""
        shown = [name for name in self.values if not is_deviation(name)]
        width = max(20, *map(len, shown))
        lines = []
        for name in shown:
            spread = self.values.get(name + DEVIATION)
            lines.append(
                f"{name:<{width}} {self.values[name]:.6g}" + (f" ± {spread:.3g}" if spread is not None else "")
            )
        notes = [("protocol", self.protocol["line"]), *(("WARNING", text) for text in self.warnings)]
        return "\n".join([*lines, *(f"{word:<{width}} {text}" for word, text in notes)])


@dataclass(frozen=True)
class Record:
    """One measured number and all that it depends on; whatever is not known is None or empty.

    Attributes:
        metric: the name of the value, such as ``FID`` or ``FD-pixels`` (:func:`ddpm_ip.metric.find`).
        value: the number.
        spread: its deviation over parts of the images.
        sampling: how the images were made, as :meth:`ddpm_ip.sampler.sampling.Sampling.facts` says it.
        weights: SHA-256 of the weights.
        averaged: whether they are averaged ones.
        n_images: of these samples.
        extractor, extractor_identity: whose features, and what they are made with.
        reference, reference_sha256, n_reference: the real images.
        samples_path: where the images are, if they are files.
        versions: those of the packages.
        line: all of it for a person.
        grid: a picture of some of the images, relative to the folder of the run.
    """

    metric: str
    value: float
    spread: float | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    averaged: bool | None = None
    n_images: int | None = None
    extractor: str | None = None
    extractor_identity: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    reference_sha256: str | None = None
    n_reference: int | None = None
    samples_path: str | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    line: str | None = None
    grid: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row that files hold."""
        return dataclasses.asdict(self)

    @property
    def seed(self) -> int | None:
        """Of the sampling."""
        return self.sampling.get("seed")

    @property
    def row(self) -> str:
        """Of a results table, see :func:`row_label`; empty if nothing is known of the sampler."""
        return row_label(self.sampling) if "sampler" in self.sampling else ""

    @property
    def label(self) -> str:
        """The row without settings that are the default of a method, see :func:`short_label`."""
        return short_label(self.sampling) if "sampler" in self.sampling else ""

    @property
    def steps(self) -> int | str | None:
        """On the grid of times: a number, or guided-diffusion's string."""
        spacing = self.sampling.get("spacing")
        return spacing if _is_sections(spacing) else self.sampling.get("steps")

    @property
    def spacing(self) -> str | None:
        """Of the times; that of guided-diffusion's strings is called sections."""
        spacing = self.sampling.get("spacing")
        return SECTIONS if _is_sections(spacing) else spacing

    @property
    def evaluations(self) -> int | None:
        """How often the network was asked for each image."""
        found: int | None = self.sampling.get("evaluations", self.sampling.get("steps"))
        return found

    @property
    def described_extractor(self) -> str | None:
        """The extractor and its identity in a few words."""
        if self.extractor is None or not self.extractor_identity:
            return self.extractor  # version 0.1 wrote the words into results.json
        return described(self.extractor, self.extractor_identity)

    def comparable(self) -> str:
        """What two numbers must share to stand side by side, as text that is equal only if all of it is.

        The metric, the extractor and its identity in words (hashes by their beginning, which is all that rows of
        version 0.1 hold), the number of images, the reference (by its hash; by its name only where there is no hash),
        and what moves an image by rounding. Neither the weights, the row, the steps and the
        seed, which are compared, nor the versions. A metric that does not look at the reference does not depend on it.
        """
        found = find(self.metric)
        reference = (self.reference_sha256 or self.reference, self.n_reference)
        return _canonical(
            self.metric,
            self.described_extractor,
            self.n_images,
            reference if found is None or found.metric.reference else None,
            [self.sampling.get(key) for key in (*COMPUTED, "computed")],
        )

    def curve(self) -> str:
        """What the numbers along a training must share: everything but the weights.

        The diffusion is that of the run, and the evaluations follow from the rest; version 0.1 said neither.
        """
        return _canonical(
            self.comparable(), {k: v for k, v in self.sampling.items() if k not in ("diffusion", "evaluations")}
        )

    def identity(self) -> str:
        """What makes a number the same measurement, made again."""
        return _canonical(self.curve(), self.sampling.get("diffusion"), self.weights, self.samples_path)


def records(row: Mapping[str, Any], where: str, about: Mapping[str, Any] | None = None) -> list[Record]:
    """The numbers of an evaluation, of a cell of a table, or of a row of results; of any version.

    Args:
        row: as :mod:`ddpm_ip.files` reads it.
        where: file and row number, for messages.
        about: what all rows have in common and do not say themselves: the protocol of a table.

    Raises:
        UserError: something is missing or of the wrong kind; says what and where.
    """
    if "values" in row:
        return _of_evaluation(row, where)
    return [_record(row if "sampling" in row else _from_flat(row, where, about or {}), where)]


def _of_evaluation(row: Mapping[str, Any], where: str) -> list[Record]:
    values, protocol = row["values"], row.get("protocol") or {}
    if not isinstance(values, Mapping) or not isinstance(protocol, Mapping):
        raise UserError(f"{where}: values and protocol must be objects. {AGAIN}.")
    common = {key: protocol[key] for key in _FIELDS & protocol.keys()}
    sampling = protocol.get("sampling")
    if isinstance(sampling, Mapping):
        common |= {key: sampling[key] for key in ("weights", "averaged") if key in sampling}
        known = {k: v for k, v in sampling.items() if k not in _FIELDS | set(_OF_A_TABLE)}
        common["sampling"] = understood(known)
    common |= {key: row[key] for key in ("grid",) if row.get(key)}
    return [
        _record({**common, "metric": name, "value": value, "spread": values.get(name + DEVIATION)}, where)
        for name, value in values.items()
        if not is_deviation(name)
    ]


def _from_flat(row: Mapping[str, Any], where: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """A row of results as version 0.1 wrote it, the facts about sampling among the others, in today's form."""
    given = {"sampler" if key == "var_type" else key for key, value in row.items() if value is not None}
    if missing := [key for key in ("metric", "value", "sampler", "steps") if key not in given]:
        raise UserError(f"{where}: {', '.join(missing)} missing. {AGAIN}.")
    facts = {**{key: about[key] for key in (*COMPUTED, "diffusion") if key in about}, **row}
    if computed := row.get("computed"):
        facts |= _from_words(str(computed))
    facts.setdefault("sampler", "ancestral")
    kept = (*ROW, *COMPUTED, "computed", "var_type", "respace_type", "spacing", "steps", "evaluations", "seed")
    sampling = understood({key: facts[key] for key in (*kept, "diffusion") if facts.get(key) is not None})
    known = {key: row[key] for key in _FIELDS & row.keys()}
    if about.get("extractor_identity"):
        known |= {key: about[key] for key in ("extractor", "extractor_identity")}
    return {**known, "sampling": sampling, "n_images": row.get("n_samples"), "line": row.get("protocol")}


def computed_in_words(facts: Mapping[str, Any]) -> str:
    """What moves an image by rounding: ``blocks of 64, bf16, fused kernels, on cuda``."""
    precision = "float32" if facts["precision"] == "no" else facts["precision"]
    fused = ", fused kernels" if facts["fast"] else ""
    return f"blocks of {facts['block']}, {precision}{fused}, on {facts['device']}"


def _from_words(computed: str) -> dict[str, Any]:
    """The words of :func:`computed_in_words`, which version 0.1 wrote into rows, as facts; others as they are."""
    found = re.fullmatch(r"blocks of (\d+), (\w+)(, fused kernels)?, on (\w+)", computed)
    if found is None:
        return {"computed": computed}
    block, precision, fused, device = found.groups()
    precision = "no" if precision == "float32" else precision
    return {"block": int(block), "precision": precision, "fast": bool(fused), "device": device, "computed": None}


def _record(row: Mapping[str, Any], where: str) -> Record:
    """Checks a row in today's form; keys that are not known here are left alone."""
    known = {key: row[key] for key in _FIELDS & row.keys() if row[key] is not None}
    if missing := [key for key in ("metric", "value") if key not in known]:
        raise UserError(f"{where}: {', '.join(missing)} missing. {AGAIN}.")
    record = Record(**{key: _converted(key, value, where) for key, value in known.items()})
    try:
        _ = record.row, record.steps, record.comparable()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: what it says of the sampling is damaged ({error!r:.120}). {AGAIN}.") from None
    return dataclasses.replace(record, sampling=_checked(record.sampling, where))


def _checked(sampling: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = dict(sampling)
    for key in ("steps", "evaluations", "seed", "block"):
        if checked.get(key) is not None:
            checked[key] = _number(int, key, checked[key], where)
    for key in ("steps", "evaluations"):
        if checked.get(key) is not None and checked[key] < 1:
            raise UserError(f"{where}: {key} must be at least 1, got {checked[key]}.")
        if checked.get(key) is not None and checked[key] > MOST_STEPS:
            raise UserError(f"{where}: {key} must be at most {MOST_STEPS:,}, got {str(checked[key])[:80]}.")
    if not isinstance(spacing := checked.get("spacing"), str | None):
        raise UserError(f"{where}: spacing must be a text, got {str(spacing)[:80]!r}. {AGAIN}.")
    return checked


def _converted(key: str, value: Any, where: str) -> Any:
    """A value of a row, as its field has it."""
    if key in ("value", "spread", "n_images", "n_reference"):
        return _number(float if key in ("value", "spread") else int, key, value, where)
    if key in ("sampling", "extractor_identity", "versions"):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: {key} must be an object, got {str(value)[:80]!r}. {AGAIN}.")
        return value
    return value if key == "averaged" else str(value)


def _number(kind: type[int] | type[float], key: str, value: Any, where: str) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: {key} must be a number, got {str(value)[:80]!r}.") from None


def identities(row: Mapping[str, Any]) -> frozenset[str]:
    """What the numbers of an evaluation are (:meth:`Record.identity`); of one that cannot be read, its protocol."""
    try:
        found = frozenset(record.identity() for record in records(row, "the evaluation"))
    except UserError:
        found = frozenset()
    return found or frozenset([_canonical(row.get("protocol"))])


_FIELDS = {f.name for f in dataclasses.fields(Record)}
_OF_A_TABLE = ("metrics", "data", "image_size", "n_samples", "rounding")  # version 0.1 put these among the sampling


def curve_id(record: Record) -> str:
    """A short name of :meth:`Record.curve`."""
    return hashlib.sha256(record.curve().encode()).hexdigest()[:12]


def described(name: str, identity: Mapping[str, Any]) -> str:
    """An extractor and its identity in a few words, such as ``pixels (range [0, 1], resize none)``."""
    return f"{name} ({', '.join(f'{key} {short(value)}' for key, value in identity.items())})"


def network(extractor: str | None, versions: Mapping[str, Any]) -> str | None:
    """Whose network an extractor is, and its version: ``torch-fidelity 0.4.0``; None where it is the project's own."""
    version = versions.get("torch-fidelity") if extractor == INCEPTION else None
    return None if version is None else f"torch-fidelity {version}"


def short(value: Any) -> str:
    """A value of a protocol for a person, a SHA-256 by its beginning."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:8]}…" if len(text) == 64 else text


def _is_sections(spacing: Any) -> bool:
    return isinstance(spacing, str) and re.fullmatch(r"\d+(,\d+)*|ddim\d+", spacing) is not None


def _canonical(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def understood(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of images (:meth:`ddpm_ip.sampler.sampling.Sampling.facts` and more), in today's words.

    Version 0.1 knew one sampler and wrote ``sampler: ancestral`` with ``var_type`` and ``respace_type``; it always
    clipped. Other keys are left as they are.
    """
    new = dict(facts)
    if isinstance(new.get("sampler"), str):
        new["sampler"] = {"name": new["sampler"]}
        if "var_type" in new:
            new["sampler"]["var_type"] = new.pop("var_type")
        if "respace_type" in new:
            new["spacing"] = new.pop("respace_type")
        if "steps" in new:
            new["evaluations"] = new["steps"]
        new |= {"corrections": [], "clip": "rederive"}
    if isinstance(new.get("diffusion"), Mapping):  # which variance the model was trained with plays no part
        new["diffusion"] = {k: v for k, v in new["diffusion"].items() if k != "var_type"}
    return new


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, one ``key.below: old -> new`` each, in the order of the keys."""
    was, now = flatten(old), flatten(new)
    keys = sorted(was.keys() | now.keys())
    changed = [key for key in keys if was.get(key) != now.get(key)]
    found = [f"{shown(key)}: {shown(was.get(key))} -> {shown(now.get(key))}" for key in changed[:MOST_SHOWN]]
    return [*found, f"and {len(changed) - MOST_SHOWN} more"] if len(changed) > MOST_SHOWN else found
