"""What files and labels say of a method and its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

LONGEST = 32  # numbers that are written out
UNSAID = {"unsaid": True}  # metadata of a field that another one stands for


def facts_of(method: Any) -> dict[str, Any]:
    """The settings of a sampler or a correction, a dataclass, as plain values for JSON.

    A setting that is None is left out, so that files from before there was a setting say the same as new ones. More
    than :data:`LONGEST` numbers become the first digits of their SHA-256. Fields with :data:`UNSAID` are left out, too.
    """
    unsaid = {f.name for f in dataclasses.fields(method) if f.metadata.get("unsaid")}
    told = {key: value for key, value in dataclasses.asdict(method).items() if key not in unsaid}
    return {key: _said(value) for key, value in told.items() if value is not None}


def canonical(value: Any) -> str:
    """Plain values as text that is the same for the same settings: 0 is 0.0, a tuple a list."""
    return json.dumps(_numbers(value), sort_keys=True)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _numbers(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_numbers(one) for one in value]
    return float(value) if type(value) is int and abs(value) < 2**53 else value


def _said(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) <= LONGEST:
        return [_said(v) for v in value]
    return f"sha256:{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]}"
