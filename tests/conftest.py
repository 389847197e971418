"""What holds for all tests."""

import os

# Two cores, several processes: threads that wait must sleep, not spin. Read when torch is loaded, here and in children.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import logging
from collections.abc import Callable

import pytest
import torch

# Where there is no GPU its kernels run in Triton's interpreter; Triton asks when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from tests.tiny import one_thread


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test is a program of its own, on one core, unless it is one of a GPU."""
    if request.node.get_closest_marker("gpu") is None:
        one_thread(monkeypatch)


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The package's log records, which a run before this test may have kept from propagating."""
    logging.getLogger("ddpm_ip").propagate = True
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
