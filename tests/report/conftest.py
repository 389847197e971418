from pathlib import Path

import pytest

from .synthetic import make_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A baseline and a DDPM-IP run whose results are 0.8 of the baseline's."""
    return [make_run(tmp_path / "baseline"), make_run(tmp_path / "perturbed", gamma=0.1, factor=0.8)]
