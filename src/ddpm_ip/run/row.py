"""The row of a results table: which facts about sampling make it, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROW = ("sampler", "corrections", "clip")  # of facts about sampling
USUAL = {"clip": "rederive"}  # what of it, beside sampler and corrections, need not be said

Settings = Mapping[str, Mapping[str, Any]]  # by the name of a sampler or correction


def row_label(facts: Mapping[str, Any], usual: Settings | None = None) -> str:
    """The row of a results table, as ``ddpm-ip table --rows`` reads it: sampler, corrections, and what else is unusual.

    ``fixed_small``; ``ddim,eta=0.5+epsilon_scaling,scale=1.02``; ``dpm_solver,order=2,solver_type=midpoint+clip=none``.

    Args:
        facts: ``sampler``, ``corrections`` and ``clip``, as :meth:`ddpm_ip.sampler.sampling.Sampling.row` has them.
        usual: by the name of a sampler or correction, its settings that need not be said. None says all.
    """
    return "+".join([sampler_label(facts, usual), *corrections_label(facts, usual)])


def sampler_label(facts: Mapping[str, Any], usual: Settings | None = None) -> str:
    """The sampler alone; the ancestral one is called by its variance, as the published tables call their rows."""
    sampler = dict(facts["sampler"])
    name = str(sampler.pop("name"))
    own = (usual or {}).get(name, {})
    label = str(sampler.pop("var_type", None) or name) if name == "ancestral" else name
    return label + _settings(sampler, own)


def corrections_label(facts: Mapping[str, Any], usual: Settings | None = None) -> list[str]:
    """The corrections, and after them what else is not as usual."""
    corrections = [(str(c["name"]), {k: v for k, v in c.items() if k != "name"}) for c in facts.get("corrections", ())]
    labels = [name + _settings(settings, (usual or {}).get(name, {})) for name, settings in corrections]
    return labels + [f"{key}={_in_words(facts[key])}" for key, value in USUAL.items() if facts.get(key, value) != value]


def _settings(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    told = {key: value for key, value in settings.items() if key not in usual or usual[key] != value}
    return "".join(f",{key}={_in_words(value)}" for key, value in told.items())


def _in_words(value: Any) -> str:
    """A setting as the command line has it, without spaces."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
