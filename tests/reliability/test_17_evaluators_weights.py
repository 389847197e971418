"""Weights of evaluators that are missing, cut off or others: a sentence with the address and the place, no network.

They are never fetched unasked. What else may be in their place is in tests/evaluate/extractors/test_weights.py.
"""

import socket

import pytest
from tests.data.conftest import encoded

from ddpm_ip.cli import main
from ddpm_ip.evaluate.extractors.weights import DINOV2, INCEPTION

FILES = {"inception-v3-compat": INCEPTION, "inception": INCEPTION, "dinov2-vit-s-14": DINOV2["dinov2-vit-s-14"]}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No connection, and nothing in the places where weights are looked for."""

    def refuse(*given, **more):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))


def evaluated(tmp_path, extractor):
    import numpy as np

    for name in ("samples", "real"):
        (tmp_path / name).mkdir(exist_ok=True)
        for i in range(3):
            image = np.full((16, 16, 3), 40 * i, np.uint8)
            (tmp_path / name / f"{i:06d}.png").write_bytes(encoded(image))
    given = ["--reference", str(tmp_path / "real"), "--extractor", extractor, "--metrics", "fid"]
    return main(["evaluate", str(tmp_path / "samples"), *given])


def damage_cut(path, file):
    path.write_bytes(b"PK\x03\x04" + bytes(1000))


def damage_page(path, file):
    path.write_text("<html>404</html>")


def damage_empty(path, file):
    path.write_bytes(b"")


@pytest.mark.parametrize("extractor", ["inception", "dinov2-vit-s-14"])
@pytest.mark.parametrize("state", [None, damage_cut, damage_page, damage_empty])
def test_it_is_said_where_they_come_from_and_where_they_belong(tmp_path, capsys, extractor, state):
    file = FILES[extractor]
    if state is not None:
        state(tmp_path / "weights" / file.name, file)
    assert evaluated(tmp_path, extractor) in (1, 2)
    said = capsys.readouterr().err
    line = said[said.index("error: ") :]
    for part in (file.name, file.url, file.sha256[:8], str(tmp_path / "weights"), "DDPM_IP_WEIGHTS"):
        assert part in line
    assert ("damaged, or not the" in line) == (state is not None)
    assert ("Remove it." in line) == (state is not None)
    assert not list(tmp_path.glob("samples/evaluation*"))
