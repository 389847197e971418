"""What ``ddpm-ip exposure`` and ``ddpm-ip calibrate`` left in the folder of a run; no number is made here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.exposure.curves import FOLDER, Exposure
from ddpm_ip.files import read_json
from ddpm_ip.report.reading import LEFT_OUT, Problems
from ddpm_ip.run.row import row_label, short_label

CALIBRATIONS = "calibration*.json"
MOST_FILES = 60  # of a kind, that are read of one run
MOST_SENTENCES = 20
MOST_NUMBERS = 3  # of a setting, that are told one by one


@dataclass(frozen=True)
class Candidate:
    """A correction that was tried.

    Attributes:
        name: of the kind.
        label: the corrections as ``--corrections`` reads them; ``none`` for none.
        mismatch: between the curves of sampling and of real images that it leaves; None if not measured.
        distance: on few samples; None if not measured.
        share: the share of the mismatch without a correction that it leaves on the same images; None if not measured.
    """

    name: str
    label: str
    mismatch: float | None
    distance: float | None
    share: float | None


@dataclass(frozen=True)
class Calibration:
    """What was chosen for one way to sample some weights.

    Attributes:
        file: its name.
        weights: SHA-256 of the weights.
        label: the sampling without the correction, such as ``ddim, 10 steps``.
        chosen: name of the chosen candidate.
        corrections: the chosen chain, as ``--corrections`` reads it; ``none`` for none.
        why: one sentence.
        candidates: what was tried, in the order of the file.
        expects, cannot_know, suggestions: sentences.
        measured: when, and on how many images, as far as that is known.
    """

    file: str
    weights: str
    label: str
    chosen: str
    corrections: str
    why: str
    candidates: tuple[Candidate, ...]
    expects: tuple[str, ...]
    cannot_know: tuple[str, ...]
    suggestions: tuple[str, ...]
    measured: str


def exposure_files(folder: Path) -> list[Path]:
    """The files of measurements, in the order of their names."""
    return sorted((folder / FOLDER).glob("*.json"))[:MOST_FILES]


def calibration_files(folder: Path) -> list[Path]:
    """The files of calibrations, in the order of their names."""
    return sorted(folder.glob(CALIBRATIONS))[:MOST_FILES]


def exposures_of(folder: Path, problems: Problems) -> list[Exposure]:
    """What was measured; of the files of a newer version that measured the same thing again, all are kept."""
    read = [problems.instead(None, f"{FOLDER}/{path.name}", _exposure, path) for path in exposure_files(folder)]
    return [exposure for exposure in read if exposure is not None]


def calibrations_of(folder: Path, problems: Problems) -> list[Calibration]:
    """What was chosen."""
    read = [problems.instead(None, path.name, _calibration, path) for path in calibration_files(folder)]
    return [calibration for calibration in read if calibration is not None]


def _exposure(path: Path) -> Exposure:
    """One file.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    return Exposure.from_dict(read_json(path, {"curves": dict}, advice=LEFT_OUT), str(path))


def _calibration(path: Path) -> Calibration:
    """One file.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    found = read_json(path, {"weights": str, "corrections": list, "chosen": str, "why": str}, advice=LEFT_OUT)
    settings = _mapping(found.get("settings"))
    n = settings.get("n")
    parts = [f"{n:,} images" if type(n) is int else "", str(found.get("measured") or "")]
    return Calibration(
        file=path.name,
        weights=found["weights"],
        label=_sampling(settings, path),
        chosen=found["chosen"],
        corrections=_chain(found["corrections"], path),
        why=found["why"],
        candidates=tuple(_candidate(one, path) for one in found.get("candidates") or ()),
        expects=_sentences(found.get("expects")),
        cannot_know=_sentences(found.get("cannot_know")),
        suggestions=_sentences(found.get("suggestions")),
        measured=", ".join(filter(None, parts)),
    )


def _candidate(one: Any, path: Path) -> Candidate:
    try:
        numbers = [None if one.get(key) is None else float(one[key]) for key in ("mismatch", "distance", "share")]
        finite = [value if value is not None and math.isfinite(value) else None for value in numbers]
        return Candidate(str(one["name"]), _chain(one.get("corrections") or (), path), *finite)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} lists a candidate that is damaged ({str(one)[:80]!r}). {LEFT_OUT}") from None


def _chain(corrections: Sequence[Any], path: Path) -> str:
    """Corrections as the command line has them, one after the other; of long tables how many numbers they hold."""
    try:
        brief = [{key: _brief(value) for key, value in one.items()} for one in corrections]
        return " ".join(row_label({"sampler": one}) for one in brief) or "none"
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} lists corrections that are damaged. {LEFT_OUT}") from None


def _brief(value: Any) -> Any:
    """A setting as a page has room for it."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.5g}")
    size = len(value) if isinstance(value, list) else 0
    return f"({size} numbers)" if size > MOST_NUMBERS or (size and isinstance(value[0], list)) else value


def _sampling(settings: Mapping[str, Any], path: Path) -> str:
    """``ddim, 10 steps``: as the settings say it, or else the name of the file."""
    sampling = _mapping(settings.get("sampling"))
    try:
        steps = settings.get("steps", sampling.get("steps"))
        others = [c for c in sampling.get("corrections", ()) if c["name"] != "auto"]
        row = short_label({**sampling, "corrections": others})
        return f"{row}, {steps} steps" if type(steps) is int else row
    except (KeyError, TypeError, ValueError, AttributeError):
        _, _, rest = path.stem.partition("-")
        sampler, _, steps = rest.rpartition("-")[0].rpartition("-")
        return f"{sampler}, {steps} steps" if steps.isdecimal() else path.stem


def _sentences(value: Any) -> tuple[str, ...]:
    """Sentences of a text, a list, or values by name; of anything else none."""
    if isinstance(value, Mapping):
        value = [f"{key}: {text}" for key, text in value.items()]
    value = [value] if isinstance(value, str) and value else value
    return tuple(str(text)[:600] for text in value[:MOST_SENTENCES]) if isinstance(value, list) else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
