"""The row of a results table: which facts about sampling make it, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

USUAL = {  # of facts about sampling: what need not be said
    "clip": "rederive", "afs": False, "denoise_to_zero": True, "classes": "balanced",
}  # fmt: skip
ROW = ("sampler", "corrections", *USUAL)  # ... and what makes the row; of USUAL, clip alone is in all files


def row_label(facts: Mapping[str, Any]) -> str:
    """The row of a results table, as ``ddpm-ip table --rows`` reads it: sampler, corrections, and what else is unusual.

    ``fixed_small``; ``ddim,eta=0.5+epsilon_scaling,scale=1.02``; ``dpm_solver,order=2,solver_type=midpoint+clip=none``.
    Settings that play no part are None and left out.

    Args:
        facts: of :data:`ROW`, as :meth:`ddpm_ip.sampler.sampling.Sampling.row` has them.
    """
    return "+".join([sampler_label(facts), *corrections_label(facts)])


def sampler_label(facts: Mapping[str, Any]) -> str:
    """The sampler alone; the ancestral one is called by its variance, as the published tables call their rows."""
    sampler = dict(facts["sampler"])
    name = str(sampler.pop("name"))
    label = str(sampler.pop("var_type", None) or name) if name == "ancestral" else name
    return label + _settings(sampler)


def corrections_label(facts: Mapping[str, Any]) -> list[str]:
    """The corrections, and after them what else is not as usual."""
    corrections = [(str(c["name"]), {k: v for k, v in c.items() if k != "name"}) for c in facts.get("corrections", ())]
    labels = [name + _settings(settings) for name, settings in corrections]
    return labels + [f"{key}={_in_words(facts[key])}" for key, value in USUAL.items() if facts.get(key, value) != value]


def _settings(settings: Mapping[str, Any]) -> str:
    told = {key: value for key, value in settings.items() if value is not None and not is_hash(value)}
    return "".join(f",{key}={_in_words(value)}" for key, value in told.items())


def spacing_name(spacing: str) -> str:
    """``optimised`` of ``optimised, sha256:0123456789ab``, as tables say how such times were found; others stay."""
    return spacing.partition(", sha256:")[0]


def is_hash(value: Any) -> bool:
    """Whether a setting is many numbers that were measured, of which facts say a hash, and nobody gives them."""
    return isinstance(value, str) and value.startswith("sha256:")


def _in_words(value: Any) -> str:
    """A setting as the command line has it, without spaces."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and len(value) == 1 and type(value[0]) is int:  # a class
        return "none" if value[0] == -1 else str(value[0])
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    if isinstance(value, list | tuple) and len(value) > 1 and all(type(one) in (int, float) for one in value):
        return "/".join(map(_in_words, value))
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
