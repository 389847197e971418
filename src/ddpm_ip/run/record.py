"""How images were made, as files say it: in the words of this version, whichever version wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
    """What is not the same, one ``key.below: old -> new`` each, in the order of the keys."""
    was, now = flatten(old), flatten(new)
    keys = sorted(was.keys() | now.keys())
    return [f"{key}: {was.get(key)} -> {now.get(key)}" for key in keys if was.get(key) != now.get(key)]


def row_label(facts: Mapping[str, Any]) -> str:
    """The row of a results table: the sampler, its variance or other settings, and the corrections.

    ``fixed_small``; ``ddim, eta 0.5``; ``dpm_solver, order 2 + epsilon_scaling 1.02``.
    """
    sampler = dict(facts["sampler"])
    name = sampler.pop("name")
    if name == "ancestral":  # as the published tables call its rows
        label = str(sampler.pop("var_type"))
    else:
        label = name
    label += "".join(f", {key} {_short(value)}" for key, value in sampler.items())
    for correction in facts.get("corrections", ()):
        settings = {key: value for key, value in correction.items() if key != "name"}
        named = len(settings) > 1
        label += f" + {correction['name']}" + "".join(
            f" {key} {_short(value)}" if named else f" {_short(value)}" for key, value in settings.items()
        )
    clip = facts.get("clip", "rederive")
    return label if clip == "rederive" else f"{label}, clip {clip}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
