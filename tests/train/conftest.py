import logging

import pytest
from tests.reliability.tiny import one_thread


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    one_thread(monkeypatch)


@pytest.fixture
def warnings_of(caplog):
    """The package's log records, which a run before this test may have kept from propagating."""
    logging.getLogger("ddpm_ip").propagate = True
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
