"""What may be in the place of the evaluator's weights."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.extractors.weights import DINOV2, INCEPTION, WeightsFile, find_weights, read_weights


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)  # of holes: it takes no room, and an hour to hash


ODD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not found"),
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "huge": huge,
    "nowhere": lambda path: path.symlink_to("gone"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", [INCEPTION, DINOV2["dinov2-vit-s-14"]], ids=lambda file: file.what)
def test_what_is_in_the_place_of_weights_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, file: object
) -> None:
    assert file in (INCEPTION, *DINOV2.values())
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ODD[kind](tmp_path / file.name)  # type: ignore[attr-defined]
    for path in (None, tmp_path / file.name):  # type: ignore[attr-defined]
        with pytest.raises(UserError, match="pth"):
            read_weights(file, path)  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["~nobody-at-all/weights", "a" * 300, "/proc/1/root", ""])
def test_a_folder_that_cannot_be_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("DDPM_IP_WEIGHTS", folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights(INCEPTION) is None
    with pytest.raises(UserError, match="To fetch it"):
        read_weights(INCEPTION)


@pytest.mark.parametrize("file", [INCEPTION, *DINOV2.values()], ids=lambda file: file.name)
def test_the_command_that_fetches_a_file_puts_it_where_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: WeightsFile
) -> None:
    """The last words of the message, whatever the folder is called; a shell would give curl these words."""
    folder = tmp_path / "it's $HOME; here"
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(folder))
    with pytest.raises(UserError) as caught:
        read_weights(file)
    _, colon, command = str(caught.value).rpartition("…): ")
    assert colon
    assert command == file.command()
    curl, *options, place, url = shlex.split(command)
    assert (curl, options, url) == ("curl", ["-fL", "--create-dirs", "-o"], file.url)
    Path(place).parent.mkdir()
    Path(place).write_bytes(b"what came")
    assert find_weights(file) == Path(place)


def test_the_document_has_the_same_commands() -> None:
    text = (Path(__file__).parents[3] / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
    home = Path("~/.cache/ddpm-ip/weights")
    for file in (INCEPTION, *DINOV2.values()):
        assert text.splitlines().count(file.command(home).replace("'", "")) == 1, file.name


def test_a_damaged_file_is_fetched_again_to_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path / "elsewhere"))
    (tmp_path / INCEPTION.name).write_bytes(b"half of it")
    with pytest.raises(UserError, match="damaged") as caught:
        read_weights(INCEPTION, tmp_path / INCEPTION.name)
    assert str(caught.value).endswith(INCEPTION.command(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02.", b"cos\nsystem\n(S'touch owned'\ntR.", b"\x80\x04K\x01."]
)
def test_a_file_of_the_right_hash_that_is_no_table_of_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    file = dataclasses.replace(INCEPTION, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match=r"weights\.pth"):
        read_weights(file, path)
    assert not Path("owned").exists()


@pytest.mark.parametrize("value", [3, [torch.zeros(1)], {"a": 1}, {1: torch.zeros(1)}])
def test_only_tensors_by_name_are_weights(tmp_path: Path, value: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(value, path)
    file = dataclasses.replace(INCEPTION, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="no table of tensors"):
        read_weights(file, path)
