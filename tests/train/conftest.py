"""The captured step without a GPU."""

import pytest
import torch

from ddpm_ip.engine import start_engine
from ddpm_ip.nn.ops import Operations
from ddpm_ip.train.loop import fresh_state, make_feed


class Replayed:
    """In place of a CUDA graph: does the work again, and puts its results where a graph would."""

    def __init__(self, step):
        self.step = step
        self.loss, self.norm = torch.zeros(()), torch.zeros(())

    def replay(self):
        for into, value in zip((self.loss, self.norm), self.step._work(), strict=True):
            into.copy_(value)


@pytest.fixture
def captured(monkeypatch):
    """Makes the step that would be captured; here its work is done each time, with plain operations (those of a GPU are
    compared with them in tests/nn)."""
    pytest.importorskip("triton")
    from ddpm_ip.nn.fused import operations
    from ddpm_ip.train.graph import CapturedStep

    monkeypatch.setattr(operations, "FusedOperations", lambda masks, layer: Operations())

    def capture(self):
        graph = Replayed(self)
        before = {name: t.clone() for name, t in self._changing().items()}
        self._set_inputs()
        self._work()
        self._put_back(before)
        return graph, graph.loss, graph.norm

    def make(config, images):
        monkeypatch.setattr(CapturedStep, "_capture", capture)
        engine = start_engine(None)
        state = fresh_state(config, engine)
        return state, CapturedStep(config, engine, make_feed(config, images, engine), state)

    return make
