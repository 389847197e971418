"""What a calibration says: its file's sentences and curves, and the table of candidates for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from ddpm_ip.exposure.candidates import BALANCE, BOTH, CONSTANT, NONE, UNDONE, Candidate, Trial, energy_ratio
from ddpm_ip.exposure.choice import PAYS, Chosen
from ddpm_ip.exposure.curves import HAAR
from ddpm_ip.exposure.truth import Truth
from ddpm_ip.sampler.correction import BandGains
from ddpm_ip.sampler.correction.auto import items

WIDTH = 79  # of what is printed
CLEAR = 0.9  # of the mismatch: what leaves more, or makes less than the inverse of it, may be chance
MANY = 500  # images: a choice by fewer is left to chance


def told(trial: Trial, known: Truth, chosen: Chosen, gamma: float | None) -> dict[str, Any]:
    """Everything in a calibration except its settings; see :func:`ddpm_ip.sample.calibrated.keep`.

    Args:
        trial: how candidates were judged.
        known: what the network says of true states.
        chosen: the choice.
        gamma: the strength of the perturbation behind the weights, where it is one number; None where nobody can say.
    """
    return {
        "corrections": [items(c) for c in chosen.best.chain],
        "chosen": chosen.best.name,
        "why": why(chosen),
        "candidates": [{**c.to_dict(), "distance": chosen.distances.get(c.name)} for c in chosen.tried],
        "expects": expects(chosen),
        "cannot_know": cannot_know(chosen),
        "suggestions": suggestions(chosen.tried, known, gamma),
        "curves": _curves(trial, known, chosen.tried),
    }


def why(chosen: Chosen) -> str:
    """Why this was chosen, in a sentence or two."""
    best, (plain, *others) = chosen.best, chosen.tried
    if chosen.features is not None:
        if best.name == NONE:
            return (
                f"Nothing is corrected: no correction brings {best.n} images clearly nearer to real ones in the "
                f"features of {chosen.features}."
            )
        return f"Of all that was tried, {best.name} is nearest to real images in the features of {chosen.features}."
    if best.name != NONE:
        return f"{best.name} leaves {best.share:.2f} times the mismatch that there is without a correction."
    if not others:
        return "Nothing is corrected: there is nothing to try besides what this sampling corrects already."
    if plain.before == 0:
        return "Nothing is corrected: there is no mismatch."
    least = min(others, key=lambda c: c.share)
    if least.share >= 1:
        return "Nothing is corrected: no correction makes the mismatch smaller."
    return (
        f"Nothing is corrected: the best of {len(others)} corrections ({least.name}) leaves {least.share:.2f} times "
        f"the mismatch, and only what leaves less than {PAYS} is taken."
    )


def expects(chosen: Chosen) -> list[str]:
    """What images with the choice are expected to be like."""
    best = chosen.best
    stays = f"The mismatch of {best.n} images stays at {best.mismatch:.3g}."
    found = [
        stays if best.name == NONE
        else f"The mismatch of {best.n} images goes from {best.before:.3g} to {best.mismatch:.3g}."
    ]  # fmt: skip
    if best.name != NONE and chosen.features is not None:
        before, after = chosen.distances[NONE], chosen.distances[best.name]
        found.append(f"Their distance in the features of {chosen.features} goes from {before:.4g} to {after:.4g}.")
    return found


def cannot_know(chosen: Chosen) -> list[str]:
    """What the choice leaves open."""
    limits = (
        "The mismatch sees noise, detail, contrast and colour, not what an image shows"
        if chosen.features is None
        else f"The features of {chosen.features} decided, and others may see it otherwise"
    )
    few = f"{chosen.tried[0].n} images are few: take some hundreds or more (--n), or chance decides."
    measure = "measure with `ddpm-ip table --corrections none auto`."
    return [f"{limits}: {measure}", *([few] if chosen.tried[0].n < MANY else [])]


def suggestions(tried: Sequence[Candidate], known: Truth, gamma: float | None) -> dict[str, str]:
    """What the measurements say about training, in sentences by key."""
    by_name = {c.name: c for c in tried}
    slope = float(known.slope.mean())
    of_training = f" Perturbation by gamma {gamma:g} alone makes that {1 / (1 + gamma**2):.3f} to 1." if gamma else ""
    found = {
        "slope": f"On real noisy images the network says {slope:.3f} times the noise that an optimal one would (mean "
        f"over the times).{of_training}"
    }
    if CONSTANT in by_name:
        found["gamma"] = _about_gamma(by_name[CONSTANT], gamma)
    if UNDONE in by_name:
        undone = by_name[UNDONE]
        found["undo"] = (
            f"Undoing the perturbation (ip_emulator,gamma={gamma:g},undo=true) leaves {undone.share:.2f} times the "
            f"mismatch: with this sampler it {_effect(undone.share)}."
        )
    return found


def _effect(share: float) -> str:
    if CLEAR < share < 1 / CLEAR:
        return "makes no clear difference"
    return "helps" if share < 1 else "does harm"


def _about_gamma(constant: Candidate, gamma: float | None) -> str:
    """Whether a constant factor of the noise asks for another strength of perturbation."""
    scale = float(constant.chain[0].scale)  # type: ignore[attr-defined]
    if scale == 1 or constant.share > CLEAR:
        return f"No constant epsilon scale clearly helps ({scale:.4g} was tried), so nothing is said about gamma."
    leaves = f"a constant epsilon scale of {scale:.4g} leaves {constant.share:.2f} times the mismatch"
    if scale < 1:
        less = "less" if gamma is None or gamma > 0 else "no"
        return f"States hold too much noise ({leaves}): for this sampler, train with {less} perturbation."
    if gamma is None:
        return f"States lack noise ({leaves}): for this sampler, train with a stronger perturbation."
    stronger = math.sqrt(scale * (1 + gamma**2) - 1)
    return f"States lack noise ({leaves}): for this sampler, train with gamma {stronger:.2g}, which builds that in."


def _curves(trial: Trial, known: Truth, tried: Sequence[Candidate]) -> dict[str, dict[str, list[float]]]:
    """What was measured, by time."""
    generator, plain = trial.generator(), tried[0].fitted
    asked, after = generator.plan.t.tolist(), generator.plan.times()[1:]
    total = energy_ratio(generator, plain.ratio, trial.target)
    found = {
        "slope": {"t": asked, "value": known.slope.tolist()},
        "eps_norm.ratio": {"t": asked, "value": (plain.norm / known.norm).nan_to_num(1.0, 1.0).tolist()},
        "energy.ratio": {"t": after, "value": total.tolist()},
    }
    for band in range(HAAR):
        found[f"energy.haar{band}.ratio"] = {"t": after, "value": plain.ratio[:, band].tolist()}
    for candidate in tried:
        of = {BALANCE: "balance", BOTH: "both"}.get(candidate.name)
        for correction in candidate.chain:
            if of is not None and isinstance(correction, BandGains):
                found |= _gains(of, correction)
    return found


def _gains(of: str, correction: BandGains) -> dict[str, dict[str, list[float]]]:
    """The tables of a correction, by name."""
    found = {}
    for letter, gains in (("a", correction.x0), ("b", correction.eps)):
        for band, gain in enumerate(gains):
            t, value = zip(*gain, strict=True) if isinstance(gain, tuple) else ((0.0,), (gain,))
            found[f"gain.{of}.{letter}.haar{band}"] = {"t": list(t), "value": list(value)}
    return found


def as_text(found: Mapping[str, Any], file: str) -> str:
    """The candidates as a table, the sentences, and where they are kept; at most 79 columns, but for the file.

    Args:
        found: what a calibration holds.
        file: where it is.
    """
    judged = any(c["distance"] is not None for c in found["candidates"])
    rows = [("", "images", "mismatch", "share", *(["distance"] if judged else []))]
    for c in found["candidates"]:
        mark = "* " if c["name"] == found["chosen"] else "  "
        distance = [] if not judged else ["" if c["distance"] is None else f"{c['distance']:.4g}"]
        rows.append((mark + c["name"], str(c["n"]), f"{c['mismatch']:.4g}", f"{c['share']:.2f}", *distance))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True))]).rstrip()
        for name, *cells in rows
    ]
    sentences = [found["why"], *found["expects"], *found["suggestions"].values(), *found["cannot_know"]]
    told = [fill(text, WIDTH, break_on_hyphens=False, break_long_words=False) for text in sentences]
    return "\n".join([*table, "", *told, "", file])
