"""Texts of samplers, corrections and rows of a table, as items of the section ``sampling``.

ddim,eta=0.5                    sampling.sampler.name: ddim, sampling.sampler.eta: 0.5
a,x=1+b                         sampling.corrections: [{name: a, x: 1}, {name: b}]
a,x=0/0.5/1                     sampling.corrections: [{name: a, x: [0, 0.5, 1]}]: numbers between slashes are a list
ddim,eta=0.5+a,x=1@quad         the row of this sampler, this correction and this spacing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ddpm_ip.errors import ConfigError

BALANCED = "balanced"  # of classes: null in a configuration
OTHERS = ("clip", "afs", "denoise_to_zero", "classes")  # items of sampling that a row of a table may name
VARIANCES = ("analytic", "analytic_residual", "fixed_large", "fixed_small", "learned_range")


def sampler_overrides(text: str, option: str = "--sampler") -> dict[str, Any]:
    """``ddim,eta=0.5`` as overrides of ``sampling.sampler``; ``fixed_small`` is ``ancestral,var_type=fixed_small``."""
    found = variant(text, option)
    if found["name"] == "ddpm":  # xyfJASON's word
        found["name"] = "ancestral"
    elif found["name"] in VARIANCES:
        found = {"name": "ancestral", "var_type": found["name"], **{k: v for k, v in found.items() if k != "name"}}
    return {f"sampling.sampler.{key}": value for key, value in found.items()}


def chain_overrides(text: str, option: str = "--corrections") -> dict[str, Any]:
    """``a,x=1+b+clip=none`` as overrides of ``sampling.corrections``, and of other items that are written KEY=VALUE.

    Raises:
        ConfigError: it cannot be read.
    """
    words = _split("+", text)
    named = [word for word in words if re.match("[^,]*=", word)]
    rest = [word for word in words if word not in named]
    found: dict[str, Any] = {"sampling.corrections": corrections("+".join(rest), option) if rest else []}
    for word in named:
        key, _, value = word.partition("=")
        if key not in OTHERS:
            raise ConfigError(f"{option} {text}: {key}=... is none of {', '.join(OTHERS)}, which a row may name so")
        add_once(found, {f"sampling.{key}": None if value == BALANCED else _value(value, f"{option} {text}")})
    return found


def row_overrides(text: str) -> dict[str, Any]:
    """``SAMPLER[+CORRECTION...][@SPACING]`` as overrides of ``sampling``; corrections are those that the row names.

    ``fixed_small`` and the other variances are the ancestral sampler with this variance.

    Raises:
        ConfigError: it cannot be read.
    """
    row, *spacing = _split("@", text)
    sampler, *chain = _split("+", row)
    if len(spacing) > 1:
        raise ConfigError(f"--rows {text}: a row has one spacing, behind one @")
    found = sampler_overrides(sampler, "--rows") | chain_overrides("+".join(chain) if chain else "none", "--rows")
    return found | ({"sampling.spacing": spacing[0]} if spacing else {})


def add_once(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds overrides to others.

    Raises:
        ConfigError: one of them says something else.
    """
    for key, value in more.items():
        if key in found and found[key] != value:
            raise ConfigError(f"{key} is given twice, as {found[key]} and as {value}: give it once")
        found[key] = value


def corrections(text: str, option: str) -> list[dict[str, Any]]:
    """``a,x=1+b`` as items of ``sampling.corrections``; ``none`` alone is none."""
    return [] if text == "none" else [variant(one, option) for one in _split("+", text)]


def variant(text: str, option: str) -> dict[str, Any]:
    """``NAME,KEY=VALUE,...`` as plain values.

    Args:
        text: as given.
        option: for messages.

    Raises:
        ConfigError: it is no such text.
    """
    name, *settings = _split(",", text)
    if not name or "=" in name:
        raise ConfigError(f"{option} {text}: write NAME, or NAME,KEY=VALUE,..., without spaces")
    found: dict[str, Any] = {"name": name}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key or key in found:
            raise ConfigError(f"{option} {text}: {setting!r} is no KEY=VALUE that is given once")
        found[key] = _value(value, f"{option} {text}")
    return found


def _value(text: str, origin: str) -> Any:
    """A plain value; numbers between slashes, ``0/0.5/1``, are a list of them."""
    from ddpm_ip.plain import parse_yaml

    if "/" in text:
        numbers = [parse_yaml(part, origin) for part in text.split("/")]
        if all(type(number) in (int, float) for number in numbers):
            return numbers
    return parse_yaml(text, origin)


def _split(mark: str, text: str) -> list[str]:
    """The parts of a text between marks; what stands in brackets stays whole, and so does a number such as 1e+5."""
    parts, depth = [""], 0
    for i, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        number = mark == "+" and re.search(r"[=,/\[ ]-?[0-9.]+[eE]$", text[:i]) is not None
        if letter == mark and depth <= 0 and not number:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
