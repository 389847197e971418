"""What Python says about a run, checked as a file would be: configurations in any form, mappings and objects.

:mod:`ddpm_ip.notebook` takes them. Objects may be somebody's own, which no file can name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_ip import config as configuration
from ddpm_ip.config import Config, from_dict, merge
from ddpm_ip.errors import ConfigError
from ddpm_ip.interop.find import given
from ddpm_ip.places import expanded
from ddpm_ip.run.record import flatten
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling

Where = Path | str
AnyConfig = Config | Mapping[str, Any] | Where


def configured(source: AnyConfig, overrides: Mapping[str, Any]) -> Config:
    """A configuration from anything that is one, with overrides on top.

    Raises:
        ConfigError: it cannot be used.
    """
    if hasattr(overrides.get("data"), "__array__"):
        raise ConfigError(
            "data is an array, which a run that continues another day would not find: keep it in a file first, "
            'data=ip.save_images("mine.npz", images)'
        )
    changes = flatten(plain_values(overrides))
    if isinstance(source, Config):  # as it is, if it can be: it may hold classes of one's own
        return from_dict(source.to_dict(), overrides=changes) if changes else source
    if isinstance(source, Mapping):
        return from_dict(merge({}, flatten(plain_values(source))), overrides=changes)
    return configuration.load(expanded(source), changes)


def plain_values(value: Any) -> Any:
    """Objects of a configuration as the plain values of a file."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain_values(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def said_of_foreign(config: AnyConfig | None, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is said of a network from elsewhere, as ``ddpm-ip import`` takes it: a configuration, and overrides on top.

    Raises:
        ConfigError: it cannot be used.
    """
    changes = flatten(plain_values(overrides))
    if isinstance(config, str | Path):
        return given(expanded(config), changes)
    tree = config.to_dict() if isinstance(config, Config) else config or {}
    return merge(merge({}, flatten(plain_values(tree))), given(None, changes))


def sampling_of(default: Sampling, settings: Mapping[str, Any]) -> Sampling:
    """The section ``sampling`` with settings on top, which are checked; the objects may be somebody's own."""
    objects: dict[str, Any] = {}
    if "sampler" in settings:
        objects["sampler"] = _object(settings["sampler"], "sampler", "ip.DDIM(eta=0)", needs="plan")
    if "corrections" in settings:
        given = settings["corrections"]
        given = [given] if given == "auto" else given
        if not isinstance(given, (list, tuple)):
            raise ConfigError(f"corrections must be a list, such as [ip.EpsilonScaling(1.01)], not {given!r}")
        example = "ip.EpsilonScaling(1.01)"
        given = (Auto() if isinstance(c, str) and c == "auto" else c for c in given)
        objects["corrections"] = tuple(_object(c, "a correction", example, needs="numbers") for c in given)
    rest = {key: value for key, value in settings.items() if key not in objects}
    checked = section("sampling", rest)
    return dataclasses.replace(default, **{key: getattr(checked, key) for key in rest}, **objects)


def _object(value: Any, what: str, example: str, needs: str) -> Any:
    if isinstance(value, type) or not dataclasses.is_dataclass(value) or not hasattr(value, needs):
        raise ConfigError(f"{what} must be an object, such as {example}, or one of your own dataclasses; got {value!r}")
    return value


def section(name: str, values: Mapping[str, Any]) -> Any:
    """A section of a configuration with such values and no others, checked.

    Raises:
        ConfigError: naming every key that is wrong.
    """
    return getattr(from_dict({"data": {"name": "digits"}, name: values}, "what was given"), name)
