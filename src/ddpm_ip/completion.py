"""What a shell completes, with argcomplete (the extra ``completion``): options, and the names that this program knows.

Shells ask by running the program with ``_ARGCOMPLETE`` set; otherwise nothing here is imported. The modules that own
the names below would load torch, so they are written out here, and a test compares them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ddpm_ip import presets
from ddpm_ip.metric import METRICS
from ddpm_ip.options import CORRECTIONS, SAMPLERS
from ddpm_ip.texts import VARIANCES

SPACINGS = ("uniform-leading", "uniform-linspace", "uniform-trailing", "quad", "logsnr", "karras", "beta", "optimised")
EXTRACTORS = ("inception", "pixels", *(f"dinov2-vit-{size}-14" for size in "sblg"))
REFERENCES = ("cifar10-train", "cifar10-test", "mnist-train", "mnist-test", "digits")
WORDS: dict[str, Sequence[str]] = {
    "--sampler": SAMPLERS,
    "--rows": (*VARIANCES, *SAMPLERS),
    "--corrections": (*CORRECTIONS, "none"),
    "--variance": VARIANCES,
    "--spacing": SPACINGS,
    "--metrics": tuple(METRICS),
    "--measure": ("eps_norm", "delta", "errors", "energy"),
    "--extractor": EXTRACTORS,
    "--against": ("plain", "diffusers", "none"),
}
YAML = ("yaml", "yml")
_Completer = Callable[..., list[str]]


def answer(parser: argparse.ArgumentParser) -> None:
    """Tells the shell what may follow, and ends the program; does nothing where argcomplete is not installed.

    Args:
        parser: of the program, or of one command.
    """
    try:
        import argcomplete
        from argcomplete.completers import FilesCompleter
    except ImportError:
        return
    for one in _parsers(parser):
        one._mutually_exclusive_groups.clear()  # argcomplete would not offer --weights beside WEIGHTS
        for action in one._actions:
            if (completer := _completer(action, FilesCompleter)) is not None:
                action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _completer(action: argparse.Action, files: Any) -> _Completer | None:
    """What completes the values of an option; None for argcomplete's own ways: choices, and files."""
    option = action.option_strings[0] if action.option_strings else ""
    if action.choices is not None:
        return None
    if option in WORDS:
        return _words(WORDS[option])
    if option == "--resume" or "-r" in action.option_strings:
        return _words(("latest", "best"), files())
    if action.metavar == "CONFIG":
        return _words(presets.names(), files(YAML))
    if action.metavar == "DATA":
        return _words((*REFERENCES, *presets.names()), files())
    if action.metavar == "NAME" and not option:
        return _words(presets.names(), files(YAML))
    return None


def _words(known: Sequence[str], files: Callable[..., Any] | None = None) -> _Completer:
    """Completes known words, and besides what else a completer finds."""

    def complete(prefix: str, **given: Any) -> list[str]:
        return [*(word for word in known if word.startswith(prefix)), *(files(prefix, **given) if files else ())]

    return complete
