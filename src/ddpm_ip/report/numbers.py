"""Numbers as a page prints them: no minus before a zero, signs that can be told apart, percent."""

from __future__ import annotations

import json
import re
from typing import Any

from ddpm_ip.metric import fixed as fixed
from ddpm_ip.metric import unsigned_zero

MINUS = "\u2212"


def figures(value: float, digits: int = 3) -> str:
    """So many significant digits, as short as possible; what is zero has no sign."""
    return unsigned_zero(f"{value:.{digits}g}")


def minus(text: str) -> str:
    """Printed numbers with a minus where they have a hyphen."""
    return re.sub(r"-(?=[\d.])", MINUS, text)


def signed(text: str) -> str:
    """A printed number with its sign in front: ``+0.5``, ``−0.5``; nothing in front of what prints as zero."""
    size = text.lstrip("-")
    if not re.search("[1-9]|inf|nan", size):
        return size
    return f"{MINUS if text.startswith('-') else '+'}{size}"


def percent(share: float, decimals: int = 1) -> str:
    """A relative change with its sign: ``−12.3 %``; none in front of what prints as zero."""
    decimals = 0 if abs(share) >= 1 else decimals
    return f"{signed(fixed(100 * share, decimals))}\u00a0%"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """``one run``, ``2 runs``: a number with its noun."""
    return f"one {thing}" if number == 1 else f"{number} {things or thing + 's'}"


def plain(value: Any) -> str:
    """Any value as text, the same for equal values."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    except (TypeError, ValueError):  # keys of several kinds
        return str(value)


def canonical(value: Any) -> str:
    """Equal for equal settings: YAML reads ``2e-4`` as text and ``0.0002`` as a number."""
    try:
        return repr(float(value)) if not isinstance(value, bool) else repr(value)
    except (TypeError, ValueError, OverflowError):
        return plain(value)
