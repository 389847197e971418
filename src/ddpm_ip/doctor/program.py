"""The program: every check of what there is, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ddpm_ip.doctor import machine
from ddpm_ip.doctor.configuration import check_configuration
from ddpm_ip.doctor.findings import Finding
from ddpm_ip.doctor.run import check_run
from ddpm_ip.errors import UserError


def doctor(config_path: Path | str | None, overrides: dict[str, Any], run: Path | None) -> list[Finding]:
    """Looks at the machine; and at a configuration, and a run, if there are any.

    Args:
        config_path: a YAML file; None for the one of the run.
        overrides: of its items, by dotted path.
        run: folder of a run.
    """
    vision = machine.Torchvision()  # begins now, in a process of its own
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("ddpm-ip", machine.python),
        ("torch", machine.torch_build),
        ("GPU", machine.gpus),
        ("accelerate", machine.accelerate),
        ("extras", machine.extras),
        ("weights", machine.weights),
        ("torch-fidelity", machine.torch_fidelity),
        ("DINOv2", machine.dinov2),
        ("disk", machine.disk),
    ]
    if config_path is not None or (run is not None and run.is_dir()):  # else the run's own check says what is wrong
        checks.append(("config", partial(check_configuration, config_path, overrides, run)))
    if run is not None:
        checks.append(("run", partial(check_run, run)))
    checks.append(("torchvision", vision.findings))
    with _quiet():  # what modules warn of is said here, in one line
        return [finding for what, check in checks for finding in _safely(what, check)]


@contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("ddpm_ip")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _safely(what: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """A check that fails is a finding itself."""
    try:
        return list(check())
    except UserError as error:
        return [Finding("problem", what, str(error))]
    except Exception as error:
        return [Finding("problem", what, f"{type(error).__name__}: {error}", "install it again")]
