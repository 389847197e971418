"""Accelerate's trackers ask which process they are in."""

import pytest
from accelerate import PartialState


@pytest.fixture(autouse=True)
def one_process(alone):
    PartialState(cpu=True)
