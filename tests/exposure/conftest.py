"""Runs that were trained for a moment, with and without classes, for the programs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.tiny import briefly_trained, briefly_trained_with_classes, one_thread


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return briefly_trained(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def with_labels(tmp_path_factory) -> Path:
    return briefly_trained_with_classes(tmp_path_factory.mktemp("classes") / "run")


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    one_thread(monkeypatch)
    return shutil.copytree(trained, tmp_path / "run")
