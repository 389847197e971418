"""No check sees this machine's own weights and caches; and a run to look at."""

import pytest
from tests.tiny import one_thread, run, tiny


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DDPM_IP_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The average keeps 0.5^8 of the initial weights: 0.4 %."""
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        folder = tmp_path_factory.mktemp("trained") / "run"
        run(tiny(n_steps=8, save_freq=4, ema_decay=0.5), folder)
    return folder
