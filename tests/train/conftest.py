import pytest
from tests.reliability.tiny import one_thread


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    one_thread(monkeypatch)
