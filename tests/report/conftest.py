from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from .remembered import draw, remember_pictures
from .synthetic import make_run


@pytest.fixture(autouse=True, scope="package")
def pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_pictures(patch)
        yield


@pytest.fixture
def drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of the drawing itself."""
    monkeypatch.setattr(Figure, "savefig", draw)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A baseline and a DDPM-IP run whose results are 0.8 of the baseline's."""
    return [make_run(tmp_path / "baseline"), make_run(tmp_path / "perturbed", gamma=0.1, factor=0.8)]
