"""Shows, in a browser on this machine, how images come about."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ddpm_ip.errors import ConfigError, UserError


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="with runs or files of weights; nothing outside it is read (default: %(default)s)",
    )
    p.add_argument(
        "--port",
        type=int,
        default=7860,
        metavar="N",
        help="of 127.0.0.1; 0 takes one that is free (default: %(default)s)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    from ddpm_ip.extras import how_to_install

    try:
        from ddpm_ip.ui.page import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("gradio", "uvicorn", "fastapi", "starlette"):
            raise
        raise UserError(f"demo-ui needs gradio: {how_to_install('demo')}") from None
    from ddpm_ip.run.log import setup

    setup(None, os.environ.get("RANK", "0") == "0")
    serve(args.folder, args.port)
    return 0
