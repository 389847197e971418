"""Files of a run: whole or not at all, never through a link, and whatever is wrong with one is told by name."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_ip import files
from ddpm_ip.config import from_dict, load
from ddpm_ip.errors import CheckpointError, ConfigError, DataError, NewerVersion, UserError
from ddpm_ip.files import (
    NUMBER,
    append_line,
    is_partial,
    mend_lines,
    read_json,
    read_lines,
    read_rows,
    read_yaml,
    sweep,
    write_json,
    write_rows,
    write_text,
    write_yaml,
    writing,
)
from ddpm_ip.plain import DEPTH, parse_yaml
from ddpm_ip.report.run import Run
from ddpm_ip.run import checkpoint
from ddpm_ip.run.log import drop_after
from ddpm_ip.run.provenance import earlier
from ddpm_ip.run.record import understood
from ddpm_ip.sample.store import Store

LEGACY = Path(__file__).parent / "legacy" / "v0.1"
WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "rows": lambda path: write_rows(path, [{"new": 1}]),
    "yaml": lambda path: write_yaml(path, {"new": 1}),
    "line": lambda path: append_line(path, {"new": 1}),
    "keep": lambda path: mend_lines(path, lambda row: False),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "json": read_json, "rows": read_rows, "lines": read_lines, "yaml": read_yaml, "config": load
}  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- whole or not at all ---------------------------------------------------------------------------------------------


def test_a_file_is_there_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "made" / "as need be" / "a.bin"
    with writing(path) as file:
        file.write(b"whole")
        assert not path.exists()
        (partial,) = path.parent.iterdir()
        assert is_partial(partial)
        assert str(os.getpid()) in partial.name
    assert path.read_bytes() == b"whole"
    assert names(path.parent) == ["a.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit, MemoryError])
@pytest.mark.parametrize("name", ["old", "new"])
def test_whatever_ends_the_block_leaves_what_was_there(tmp_path: Path, error: type[BaseException], name: str) -> None:
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(error), writing(tmp_path / name) as file:  # noqa: PT012
        file.write(b"half")
        file.flush()
        raise error
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_killed_process_leaves_the_old_file_whole_and_the_next_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"value": "old"})
    code = (
        "import sys; from pathlib import Path; from ddpm_ip.files import writing\n"
        "with writing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); print('half', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert read_json(path) == {"value": "old"}
    (corpse,) = (other for other in tmp_path.iterdir() if other != path)
    assert is_partial(corpse)
    assert corpse.read_bytes() == b"half"
    write_json(path, {"value": "new"})
    assert read_json(path) == {"value": "new"}


def test_what_is_there_under_the_name_of_a_partial_file_is_left_alone(tmp_path: Path) -> None:
    """In a container every process may be number 1, and version 0.1 gave such files no random part."""
    corpse = tmp_path / f".a.txt.{os.getpid()}.partial"
    corpse.symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == [corpse.name, "a.txt"]
    assert is_partial(corpse)


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with writing(path) as one, writing(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["x" * 255, "\N{GRINNING FACE}" * 63, "a\nb"])
def test_a_name_that_fits_can_be_written(tmp_path: Path, name: str) -> None:
    with writing(tmp_path / name):
        (partial,) = tmp_path.iterdir()
        assert is_partial(partial)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.png", ".a.png", ".a.12.partial.png", "a.12.partial", ".a.12.xyz.partial"])
def test_what_is_no_partial_file(name: str) -> None:
    assert not is_partial(Path(name))


FULL = """
import resource, signal, sys
from pathlib import Path
from ddpm_ip.errors import UserError
from ddpm_ip.files import append_line, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
folder, large = Path(sys.argv[1]), "x" * 20_000
for write in (
    lambda: write_text(folder / "old.txt", large),
    lambda: write_text(folder / "new.txt", large),
    lambda: append_line(folder / "lines.jsonl", {"large": large}),
):
    try:
        write()
    except UserError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    write_text(tmp_path / "old.txt", "old")
    append_line(tmp_path / "lines.jsonl", {"step": 1})
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    told = done.stdout.splitlines()
    assert [line.split(" cannot be written: ")[0] for line in told] == [
        str(tmp_path / name) for name in ("old.txt", "new.txt", "lines.jsonl")
    ]
    assert all("File too large" in line for line in told)
    assert names(tmp_path) == ["lines.jsonl", "old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"
    append_line(tmp_path / "lines.jsonl", {"step": 2})  # when there is room again
    assert [row["step"] for row in read_lines(tmp_path / "lines.jsonl").rows] == [1, 2]


@pytest.mark.parametrize(
    ("number", "help"), [(errno.ENOSPC, "Free some space"), (errno.EACCES, "may write to"), (errno.EIO, "try again")]
)
def test_an_error_says_which_file_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, help: str
) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=rf"a\.txt cannot be written: {os.strerror(number)}\. .*{help}"):
        write_text(tmp_path / "a.txt", "")
    with pytest.raises(DataError, match=r"Ask Ann$"):
        write_json(tmp_path / "a.txt", {}, advice="Ask Ann", error=DataError)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"file must be a folder, and something else is in its place"):
        WRITERS["text"](tmp_path / "file" / "a.txt")
    with pytest.raises(UserError, match=r"link must be a folder, and a symbolic link to nowhere is in its place"):
        WRITERS["text"](tmp_path / "link" / "a.txt")
    with pytest.raises(DataError, match=r"the folder .* cannot be made: Not a directory\. .*path is a file"):
        write_json(tmp_path / "file" / "folder" / "a.txt", {}, error=DataError)
    with pytest.raises(UserError, match=r"a\.txt cannot be written: Not a directory"):
        WRITERS["line"](tmp_path / "file" / "a.txt")


# --- links and what is no file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("target", ["there", "absent"])
def test_nothing_is_written_through_a_link_nor_over_it(tmp_path: Path, kind: str, target: str) -> None:
    if target == "there":
        (tmp_path / "there").write_text('{"mine": 1}\n')
    (tmp_path / "link").symlink_to(target)
    before = names(tmp_path)
    with pytest.raises(UserError, match="symbolic link to|cannot be read" if kind == "keep" else "symbolic link to"):
        WRITERS[kind](tmp_path / "link")
    assert names(tmp_path) == before
    assert (tmp_path / "link").is_symlink()
    if target == "there":
        assert (tmp_path / "there").read_text() == '{"mine": 1}\n'


def test_a_folder_on_the_way_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_json(tmp_path / "link" / "a.json", {"a": 1})
    assert read_json(tmp_path / "real" / "a.json") == {"a": 1}


@pytest.mark.parametrize("kind", [*WRITERS][:5])
def test_what_is_no_file_is_not_written_over(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("folder", "a folder"), ("pipe", "a pipe"), ("/dev/null", "a device")):
        with pytest.raises(UserError, match=f"cannot be written: .*{word}.* is in its place"):
            WRITERS[kind](tmp_path / name)
    with pytest.raises(UserError, match="a folder is in its place"):
        WRITERS[kind](Path())  # has no name
    assert names(tmp_path) == ["folder", "pipe"]


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_file_is_an_error_and_no_wait(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "/dev/zero", "absent"):
        with pytest.raises(UserError, match=f"{name} cannot be read: "):
            READERS[kind](tmp_path / name)


def test_a_link_is_read_unless_it_must_not_be(tmp_path: Path) -> None:
    write_json(tmp_path / "real.json", {"a": 1})
    (tmp_path / "link.json").symlink_to("real.json")
    assert read_json(tmp_path / "link.json") == {"a": 1}
    with pytest.raises(UserError, match=r"link\.json cannot be read: Too many levels of symbolic links"):
        read_json(tmp_path / "link.json", links=False)


def test_the_files_of_a_checkpoint_may_be_no_links(tmp_path: Path) -> None:
    path = tmp_path / "step00000060"
    path.mkdir()
    for file in (LEGACY / "run" / "ckpt" / path.name).iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    assert checkpoint.read(path).step == 60
    os.rename(path / "manifest.json", tmp_path / "manifest.json")
    (path / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        checkpoint.read(path)


# --- what cannot be read ---------------------------------------------------------------------------------------------

DAMAGED = {
    "empty": b"",
    "half": b'{"half": ',
    "no text": b"\xff\xfe\x00\x80",
    "not UTF-8": b'{"name": "\xff"}',
    "lists": b"[" * 10_000,
    "closed lists": b"[" * 10_000 + b"]" * 10_000,
    "objects": b'{"a": ' * 10_000 + b"1" + b"}" * 10_000,
    "a little too deep": b'{"a": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "a text": b'"text"',
    "null": b"null",
    "a number": b"1",
    "mixed": b'[{"a": 1}, 2]',
}


@pytest.mark.parametrize("kind", ["json", "rows", "yaml", "config"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_damaged_is_told_by_name_and_with_advice(tmp_path: Path, kind: str, damage: str) -> None:
    (tmp_path / "a.file").write_bytes(DAMAGED[damage])
    with pytest.raises(UserError, match=r"a\.file cannot be read: .+\. (Restore|Give)"):
        READERS[kind](tmp_path / "a.file")


def test_the_deepest_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": ' + "[" * (DEPTH - 1) + "]" * (DEPTH - 1) + "}")
    assert list(read_json(tmp_path / "a")) == ["a"]
    assert list(read_yaml(tmp_path / "a")) == ["a"]


@pytest.mark.parametrize("kind", READERS)
def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)  # with holes: it takes no room
    with pytest.raises(UserError, match=r"huge cannot be read: it has more than \d+ MB"):
        READERS[kind](tmp_path / "huge")


def test_a_shape_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for value, words in (
        ({}, "it lacks step, name"),
        ({"step": "1", "name": "x"}, "it has a step that is a text"),
        ({"step": True, "name": "x"}, "it has a step that is true or false"),
        ({"step": float("nan"), "name": "x"}, "it has a step that is not finite"),
        ({"step": 1, "name": None}, "it has a name that is empty"),
    ):
        write_json(path, value)
        with pytest.raises(CheckpointError, match=f"a.json cannot be read: {words}"):
            read_json(path, {"step": NUMBER, "name": str}, error=CheckpointError)
        write_rows(path, [{"step": 1, "name": "x"}, value])
        with pytest.raises(UserError, match=words.replace("it ", "row 2 ", 1)):
            read_rows(path, {"step": NUMBER, "name": str})
    write_json(path, {})
    with pytest.raises(UserError, match="it must be a list, and is an object"):
        read_rows(path)


def test_values_survive(tmp_path: Path) -> None:
    value = {
        "text": "Größe \u2028 \udcff",
        "large": 2**64 - 1,
        "nan": float("inf"),
        "deep": [{"a": [None, True, 1e-300]}],
    }
    write_json(tmp_path / "a.json", value)
    write_rows(tmp_path / "rows.json", [value, {}])
    append_line(tmp_path / "a.jsonl", value)
    assert read_json(tmp_path / "a.json") == value
    assert read_rows(tmp_path / "rows.json") == [value, {}]
    assert read_lines(tmp_path / "a.jsonl") == ([value], [])
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_whole_number_that_no_float_holds_is_infinite(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"huge": {"9" * 10_000}, "large": {10**299}}}')
    assert read_json(tmp_path / "a.json") == {"huge": float("inf"), "large": 10**299}


@given(st.binary(max_size=60) | st.text(st.sampled_from('[]{}",:1e-N \n\\u0'), max_size=60).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_told(content: bytes) -> None:
    path = Path(f"/dev/shm/ddpm-ip-{os.getpid()}") if os.path.isdir("/dev/shm") else Path(f".any-{os.getpid()}")
    try:
        path.write_bytes(content)
        for reader in (read_json, read_rows, read_yaml, read_lines):
            with contextlib.suppress(UserError):
                assert isinstance(reader(path), dict | list | tuple)  # type: ignore[operator]
    finally:
        path.unlink(missing_ok=True)


# --- YAML ------------------------------------------------------------------------------------------------------------


def test_yaml_is_read_as_people_mean_it(tmp_path: Path) -> None:
    tree = {"rate": 1e-4, "name": "no", "path": "Bücher", "list": [1, 2.5, None, True]}
    write_yaml(tmp_path / "a.yaml", tree)
    assert (tmp_path / "a.yaml").read_text(encoding="utf-8").startswith("schema: 1\n")
    assert read_yaml(tmp_path / "a.yaml") == tree
    (tmp_path / "b.yaml").write_text("\ufeffrate: 1e-4\nname: no\n", encoding="utf-8")
    assert read_yaml(tmp_path / "b.yaml") == {"rate": 1e-4, "name": "no"}


def test_a_key_twice_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"a\.yaml cannot be read: .*'seed' is there twice.*line 2"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_that_unfolds_without_end_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    with pytest.raises(ConfigError, match="far more than is written"):
        parse_yaml(bomb, "bomb")
    with pytest.raises(ConfigError, match=r"levels deep|far more"):
        parse_yaml("&a [*a]", "itself")
    assert parse_yaml("a: &a {b: 1}\nc: *a", "few") == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_configuration_may_carry_its_schema(tmp_path: Path) -> None:
    config = from_dict({"data": {"name": "digits"}, "model": {"in_channels": 1}})
    write_yaml(tmp_path / "a.yaml", config.to_dict())
    assert load(tmp_path / "a.yaml") == config
    (tmp_path / "b.yaml").write_text("schema: 2\n" + config.to_yaml())
    with pytest.raises(NewerVersion, match=r"b\.yaml was written by a newer version"):
        load(tmp_path / "b.yaml")


# --- JSON lines ------------------------------------------------------------------------------------------------------


def test_a_cut_last_line_is_normal_and_what_follows_has_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_line(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_lines(path) == ([{"step": 1}], [])
    append_line(path, {"step": 3})
    assert read_lines(path) == ([{"step": 1}, {"step": 3}], [2])
    drop_after(path, 2)
    assert path.read_text() == '{"schema": 1, "step": 1}\n'


def test_damaged_lines_are_counted_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = b"[" * 10_000
    path.write_bytes(b'{"step": 1}\n\n[1]\n"text"\n\xff\n' + deep + b'\n{"loss": 1}\n{"step": null}\n{"step": 2}\n{\n')
    assert read_lines(path, {"step": NUMBER}) == ([{"step": 1}, {"step": 2}], [3, 4, 5, 6, 7, 8, 10])


def test_lines_that_stay_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":1,  "loss":1e-05}\n{"step": 2}\n{"step": 3}')
    drop_after(path, 2)
    assert path.read_text() == '{"step":1,  "loss":1e-05}\n{"step": 2}\n'


def test_processes_may_append_to_one_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ddpm_ip.files import append_line\n"
        "path, n = Path(sys.argv[1]), int(sys.argv[2])\n"
        "for i in range(200): append_line(path, {'process': n, 'i': i, 'pad': 'x' * 5000})\n"
    )
    path = tmp_path / "a.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    rows, damaged = read_lines(path)
    assert damaged == []
    for n in range(3):
        assert [row["i"] for row in rows if row["process"] == n] == list(range(200))


# --- the schema ------------------------------------------------------------------------------------------------------


def test_a_schema_is_the_files_and_not_the_contents(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"schema": 1, "a": 1}
    assert read_json(tmp_path / "a.json") == {"a": 1}
    write_json(tmp_path / "b.json", {"a": 1}, schema=3)
    assert read_json(tmp_path / "b.json", schema=3) == {"a": 1}


@pytest.mark.parametrize("kind", READERS)
def test_a_newer_schema_is_refused(tmp_path: Path, kind: str) -> None:
    row = '{"schema": 3, "a": 1}'
    (tmp_path / "a").write_text(f"[{row}]" if kind == "rows" else row + "\n")
    words = (
        rf"a was written by a newer version of ddpm-ip \(schema 3, this version knows {files.SCHEMA}\): update ddpm-ip"
    )
    with pytest.raises(NewerVersion, match=words):
        READERS[kind](tmp_path / "a")


@pytest.mark.parametrize("schema", ['"1"', "null", "true", "1.5", "[]"])
def test_a_schema_that_is_no_number_is_damage(tmp_path: Path, schema: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"schema": {schema}}}')
    with pytest.raises(UserError, match="which is not a whole number"):
        read_json(tmp_path / "a.json")


def test_a_newer_checkpoint_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    """Else a run would continue from the one before it, and set the newer one aside."""
    tensors = {name: {"w": np_tensor()} for name in ("model", "ema", "optimizer")}
    checkpoint.save(tmp_path, 1, tensors, {})
    newer = checkpoint.save(tmp_path, 2, tensors, {})
    manifest = json.loads((newer / "manifest.json").read_text())
    assert "schema" not in manifest, "version 0.1 takes it for a file"
    assert json.loads((newer / "meta.json").read_text())["schema"] == 1
    (newer / "manifest.json").write_text(json.dumps({"schema": 2, **manifest}))
    with pytest.raises(NewerVersion, match=r"step00000002/manifest\.json"):
        checkpoint.newest(tmp_path)
    assert names(tmp_path) == ["step00000001", "step00000002"]


def np_tensor() -> Any:
    import torch

    return torch.from_numpy(np.zeros(2, dtype=np.float32))


# --- version 0.1 -----------------------------------------------------------------------------------------------------


def test_files_of_version_0_1_are_read_as_they_are() -> None:
    found = [path for path in LEGACY.rglob("*.json") if path.name != "walks.json"]
    assert {path.name for path in found} >= {
        "sampling.json",
        "provenance.json",
        "protocol.json",
        "table.json",
        "meta.json",
    }
    for path in found:
        written = json.loads(path.read_text(encoding="utf-8"))
        assert (read_rows(path) if isinstance(written, list) else read_json(path)) == written
    for path in LEGACY.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert read_lines(path) == (rows, [])
    assert load(LEGACY / "run" / "config.yaml").seed == read_yaml(LEGACY / "run" / "config.yaml")["seed"]


def test_a_run_of_version_0_1_is_reported_and_found() -> None:
    run = Run.load(LEGACY / "run")
    assert not run.problems
    assert [line["step"] for line in run.evaluations] == [30, 60]
    assert run.results
    assert checkpoint.find(LEGACY / "run").step == 60


def test_a_folder_of_samples_of_version_0_1_continues(tmp_path: Path) -> None:
    """Its mark has no schema; that of one made now has; both are equal to what is asked for."""
    identity = understood(read_json(LEGACY / "samples-small" / "sampling.json"))
    (tmp_path / "sampling.json").write_bytes((LEGACY / "samples-small" / "sampling.json").read_bytes())
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new"):
        store = Store.at(folder, "sample", 1)
        assert store._claim(identity) is None
        assert store.block() == identity["block"]
    assert json.loads((tmp_path / "new" / "sampling.json").read_text()) == {"schema": 1, **identity}
    refused = Store.at(tmp_path / "new", "sample", 1)._claim({**identity, "seed": 77})
    assert refused is not None
    assert "seed: 0 -> 77" in refused


def test_samples_go_where_a_killed_process_left_nothing_but_a_partial_file(tmp_path: Path) -> None:
    (tmp_path / ".sampling.json.123.partial").write_text("half")
    assert Store.at(tmp_path, "sample", 1)._claim({"seed": 1}) is None
    (tmp_path / "other" / "x").mkdir(parents=True)
    assert "holds other files" in str(Store.at(tmp_path / "other", "sample", 1)._claim({"seed": 1}))


def test_processes_before_this_one_are_a_flat_list() -> None:
    """A run may be resumed more often than JSON can be nested."""
    old = {"started": 1, "earlier": {"started": 0}}  # of version 0.1
    assert earlier(old) == [{"started": 1}, {"started": 0}]
    again = {"started": 2, "earlier": earlier(old)}
    assert [one["started"] for one in earlier(again)] == [2, 1, 0]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    left, others = [".a.json.7.partial", ".step1.png.7.partial"], ["a.json", ".b.json.7.partial", ".a.json.partial"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    sweep(tmp_path, "a.json", "step*.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
