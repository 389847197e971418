"""What may be asked of the page's server; all else is refused before gradio sees it.

gradio has more addresses than this page needs, and some of them fetch, or read, what a request names. It also takes a
file, or the address of one, for the value of any control: a server that is mounted, as this one is, copies it without
asking where it lies. So few addresses are open, and to them texts and numbers alone are said.

Requests to another host, as those of a page that has bent its own name to 127.0.0.1, and requests of other pages are
refused, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from ddpm_ip.plain import parse_json

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")  # names of it
POLICY = (  # for the browser; gradio's own programs stand in the page, and make others of texts
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'none'; frame-ancestors 'none'"
)
OPEN = re.compile(
    r"/|/(assets|static)/.*|/theme\.css|/config/?|/manifest\.json|/favicon\.ico"
    r"|/gradio_api/(queue/(join|data)|cancel|reset|heartbeat/[^/]*|startup-events)/?"
)
LONGEST = 10_000  # bytes of a request


class Refusal(NamedTuple):
    """An answer instead of gradio's: its HTTP status, and a sentence."""

    status: int
    text: str


def refusal(method: str, path: str, origin: str | None, body: bytes) -> Refusal | None:
    """Why a request is refused; None if it is not.

    Args:
        method: of HTTP.
        path: of its address.
        origin: the page that makes it, as its browser says; None where nobody says.
        body: what is sent.
    """
    if method not in ("GET", "HEAD", "POST") or OPEN.fullmatch(path) is None:
        return Refusal(404, "There is nothing here.")
    if origin is not None and _host(origin) not in HOSTS:
        return Refusal(403, "This is for the page alone.")
    if method == "POST" and not _is_plain(body):
        return Refusal(400, "This page is told texts and numbers.")
    return None


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


def _is_plain(body: bytes) -> bool:
    """Whether it is an object whose values are texts, numbers, or lists of them."""
    try:
        found = parse_json(body.decode()) if len(body) <= LONGEST else None
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    parts = [part for value in found.values() for part in (value if isinstance(value, list) else [value])]
    return all(part is None or isinstance(part, (str, int, float)) for part in parts)
