"""The row of a results table: which facts about sampling make it, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

USUAL = {  # of facts about sampling: what need not be said
    "clip": "rederive", "afs": False, "denoise_to_zero": True, "classes": "balanced",
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # of methods, where they play a part: what a short label leaves out
    "ddim": {"eta": 0.0},
    "deis": {"order": 3, "fit": "t", "lower_order_final": False},
    "dpm_solver": {"order": 2, "solver_type": "midpoint", "lower_order_final": True, "corrected": False},
    "dpm_solver_sde": {"order": 2, "solver_type": "midpoint", "lower_order_final": True},
    "dpm_solver_single": {"order": 2, "solver_type": "midpoint", "inner": "grid"},
    "er_sde": {"order": 3, "noise_scale": "er_sde_5", "difference": "backward"},
    "euler": {"s_churn": 0.0, "s_tmin": 0.0, "s_noise": 1.0},
    "heun": {"s_churn": 0.0, "s_tmin": 0.0, "s_noise": 1.0},
    "ipndm": {"order": 4},
    "ipndm_v": {"order": 4},
    "restart": {"restarts": 2, "restart_steps": 2, "rho_low": 0.06, "rho_high": 0.3},
    "sa_solver": {
        "predictor_order": 2, "corrector_order": 2, "tau": 1.0, "tau_from": 0.2, "tau_to": 0.8,
        "linear_term": "published",
    },
    "unipc": {"order": 2, "solver_type": "bh2", "lower_order_final": True},
    "band_gains": {"x0": [1.0], "eps": [1.0]},
    "dcw": {"low": 0.005, "high": 0.0, "weights": "std"},
    "dynamic_thresholding": {"quantile": 0.995},
    "epsilon_scaling": {"scale": 1.005},
    "guidance": {"scale": 1.5},
    "ip_emulator": {"gamma": 0.1, "undo": False},
    "time_shift": {"window": 30, "cutoff": 300.0, "variant": "published"},
    "tsr": {"k": 0.98, "sigma": 0.5},
    "variance_normalisation": {"cutoff": 500.0},
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


def short_label(facts: Mapping[str, Any]) -> str:
    """The same without the settings that samplers and corrections have by themselves, as tables call their rows.

    It needs no method's class, so that a page can be made of files alone.
    """
    corrections = [_short(one) for one in facts.get("corrections", ())]
    return row_label({**facts, "sampler": _short(facts["sampler"]), "corrections": corrections})


def _short(section: Mapping[str, Any]) -> dict[str, Any]:
    usual = DEFAULTS.get(str(section["name"]), {})
    return {key: value for key, value in section.items() if key not in usual or value != usual[key]}


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
    """Whether a setting is many measured numbers, which facts give by a hash and nobody types."""
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
