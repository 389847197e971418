"""What files and labels say of a method and its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

LONGEST = 32  # numbers that are written out


def facts_of(method: Any) -> dict[str, Any]:
    """The settings of a sampler or a correction, a dataclass, as plain values for JSON.

    A setting that is None is left out, so that files from before there was a setting say the same as new ones. More
    than :data:`LONGEST` numbers become the first digits of their SHA-256.
    """
    return {key: _said(value) for key, value in dataclasses.asdict(method).items() if value is not None}


def _said(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) <= LONGEST:
        return [_said(v) for v in value]
    return f"sha256:{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]}"
