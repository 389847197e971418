"""``evaluate`` from files, streams and several processes, with extractors of one's own."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import ROOT, TORCHRUN, finish, start, two_processes, wait_for
from tests.tiny_extractor import Tiny

from ddpm_ip.cli import main
from ddpm_ip.data import Digits, ImageSet
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate import collect
from ddpm_ip.evaluate.evaluate import Comparison, Evaluator, evaluate
from ddpm_ip.evaluate.features import Pixels, find_extractor
from ddpm_ip.evaluate.floor import floor
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.evaluate.program import keep, reference_images
from ddpm_ip.images import save_png
from ddpm_ip.run.record import Evaluation

CPU = torch.device("cpu")
ALL = ["fid", "isc", "kid", "prc", "sfid"]
TINY = ["--extractor", "tiny_extractor:Tiny", "--metrics", ",".join(ALL)]


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


def pictures(n: int, seed: int, size: int = 16) -> np.ndarray:
    """``uint8`` (N, 3, size, size)."""
    rng = np.random.default_rng(seed)
    tone = rng.integers(0, 200, size=(n, 3, 1, 1))
    return (tone + rng.integers(0, 55, size=(n, 3, size, size))).astype(np.uint8)


FAKE, REAL = pictures(70, 0), pictures(90, 1)


@pytest.fixture
def reference() -> ImageSet:
    return from_arrays(REAL, None, "real", 16)


def tiny(samples: object, reference: ImageSet, extractor: Tiny | None = None, **given: object) -> Evaluation:
    extractor = extractor or Tiny(CPU)
    return evaluate(samples, reference, extractor=extractor, **{"metrics": ALL, "device": CPU, **given})  # type: ignore[arg-type]


def evaluator(extractor: Tiny | None = None, batch_size: int | None = None) -> Evaluator:
    return Evaluator(extractor or Tiny(CPU), ALL, CPU, batch_size)


def png_folder(folder: Path, images: np.ndarray = FAKE) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        save_png(image, folder / f"{i:06d}.png")
    return folder


def npz_file(path: Path, images: np.ndarray, name: str = "images") -> Path:
    np.savez(path, **{name: images.transpose(0, 2, 3, 1)})
    return path


def parquet_file(path: Path, folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    rows = [{"bytes": file.read_bytes()} for file in sorted(folder.iterdir())]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), path)
    return path


def test_every_kind_of_samples_gives_the_same_numbers(tmp_path: Path, reference: ImageSet) -> None:
    folder = png_folder(tmp_path / "png")
    kinds = {
        "memory": np.array_split(FAKE, [3, 50]),
        "png": folder,
        "name": str(folder),
        "npz": npz_file(tmp_path / "a.npz", FAKE),
        "adm": npz_file(tmp_path / "b.npz", FAKE, "arr_0"),
        "parquet": parquet_file(tmp_path / "c.parquet", folder),
    }
    found = {
        kind: evaluator(batch_size=1 + i * 13).evaluate(open_samples(samples), reference)  # type: ignore[arg-type]
        for i, (kind, samples) in enumerate(kinds.items())
    }
    names = {"FD-tiny", "CS-tiny", "CS-tiny_std", "KD-tiny", "KD-tiny_std", "precision-tiny", "recall-tiny", "sFD-tiny"}
    for kind, evaluation in found.items():
        assert set(evaluation.values) == names
        assert evaluation.values == pytest.approx(found["memory"].values, rel=1e-6), kind
        assert evaluation.protocol["n_images"] == 70


def test_a_set_is_no_distance_from_itself_and_distances_are_symmetric(reference: ImageSet) -> None:
    fake = from_arrays(FAKE, None, "fake", 16)
    metrics = ["fid", "sfid", "prc"]
    there, back = tiny([FAKE], reference, metrics=metrics).values, tiny([REAL], fake, metrics=metrics).values
    for name in ("FD-tiny", "sFD-tiny"):
        assert there[name] == pytest.approx(back[name], rel=1e-9)
        assert there[name] > 1e-3
    assert (there["precision-tiny"], there["recall-tiny"]) == (back["recall-tiny"], back["precision-tiny"])
    same = tiny([REAL], reference, metrics=metrics).values
    assert abs(same["FD-tiny"]) < 1e-6
    assert abs(same["sFD-tiny"]) < 1e-6
    assert (same["precision-tiny"], same["recall-tiny"]) == (1, 1)


def test_closed_form_for_two_gaussians() -> None:
    """One pixel in RGB, channels independent: FD-pixels is |m1 - m2|^2 + sum (s1 - s2)^2 of the samples drawn."""
    rng = np.random.default_rng(0)
    sets = [rng.normal(m, s, (4000, 3, 1, 1)).round().clip(0, 255) for m, s in ((100, 10), (140, 25))]
    values = evaluate(
        [sets[0].astype(np.uint8)], from_arrays(sets[1].astype(np.uint8), None, "real", 1),
        extractor=find_extractor("pixels", CPU), metrics=["fid"], device=CPU,
    ).values  # fmt: skip
    assert values["FD-pixels"] == pytest.approx(3 * (40**2 + 15**2) / 255**2, rel=0.02)


def test_the_reference_is_made_once_and_made_again_when_its_file_is_damaged(
    reference: ImageSet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ddpm_ip"), "propagate", True)
    caplog.set_level(logging.WARNING, "ddpm_ip")
    extractor = Tiny(CPU)
    first = tiny([FAKE], reference, extractor).values
    assert sum(shape[0] for shape in extractor.seen) == 70 + 90
    extractor.seen.clear()
    assert tiny([FAKE], reference, extractor).values == first
    assert sum(shape[0] for shape in extractor.seen) == 70
    for name in ("pool.rows", "pool.moments", collect.MANIFEST):
        (path,) = collect.cache_folder().glob(f"*/{name}")
        content = bytearray(path.read_bytes())
        content[-20] ^= 255
        path.write_bytes(content)
        extractor.seen.clear()
        assert tiny([FAKE], reference, extractor).values == first, name
        assert sum(shape[0] for shape in extractor.seen) == 70 + 90, name
        extractor.seen.clear()
        assert tiny([FAKE], reference, extractor).values == first
        assert sum(shape[0] for shape in extractor.seen) == 70
    assert len(list(collect.cache_folder().iterdir())) == 1  # nothing is left over
    assert "damaged" in caplog.text


def test_another_identity_is_another_reference(reference: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny([FAKE], reference)
    monkeypatch.setattr(Tiny, "identity", lambda self: {"seed": 1})
    extractor = Tiny(CPU)
    tiny([FAKE], reference, extractor)
    assert sum(shape[0] for shape in extractor.seen) == 70 + 90


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, reference: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny([FAKE], reference).values
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "file"))
    assert tiny([FAKE], reference).values == expected


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """1,024 features an image, in float64 9.8 MB for 1,200: they are in a file, and its map is no memory."""
    peaks, held = [], []

    class Watched(Pixels):
        def __call__(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
            # PyTorch's memory, which tracemalloc does not see
            held.append(sum(x.nbytes for x in gc.get_objects() if type(x) is torch.Tensor and not x.is_sparse))
            return super().__call__(images)

    for n in (300, 1500):
        images = (np.full((100, 1, 32, 32), i % 256, dtype=np.uint8) for i in range(n // 100))
        wanted = collect.Wanted(frozenset({"pool"}), frozenset({"pool"}))
        tracemalloc.start()
        found = collect.collect(open_samples(images), collect.Pass(Watched(CPU), wanted, 50, CPU), tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1] + held[-1])
        tracemalloc.stop()
        assert found is not None
        assert found.rows["pool"].shape == (n, 1024)
        assert found.rows["pool"][-1, 0] == (n // 100 - 1) / 255
        del found  # with its moments
    assert peaks[1] < peaks[0] + 1_000_000


def test_many_features_are_added_up_in_the_memory_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are the same; a GPU would not hold the 19 GB that pixels of 128 x 128 images need."""
    moved = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(self.shape) or self)
    wanted = collect.Wanted(frozenset({"pool"}), frozenset())
    totals = []
    for limit in (1024, 1023):
        monkeypatch.setattr(collect, "ON_DEVICE", limit)
        images = iter([np.arange(2048, dtype=np.uint16).astype(np.uint8).reshape(2, 1, 32, 32)])
        found = collect.collect(open_samples(images), collect.Pass(Pixels(CPU), wanted, 50, CPU), tmp_path)
        assert found is not None
        totals.append((found.moments["pool"].covariance, moved.count((2, 1024))))
    assert np.array_equal(totals[0][0], totals[1][0])
    assert [count for _, count in totals] == [0, 1]


def compared(reference: ImageSet) -> Comparison:
    found = evaluator().compare(open_samples([FAKE]), reference)
    assert found is not None
    return found


def test_what_is_compared_can_be_concluded_later_and_needs_no_files(
    tmp_path: Path, reference: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary files are gone by then, whatever happens to the process; and those of the reference may go."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    used: list[str] = []
    ordinary = collect.collect

    def look(source: object, how: object, folder: Path, *given: object) -> object:
        found = ordinary(source, how, folder, *given)  # type: ignore[arg-type]
        used.extend(path.name for path in folder.iterdir())
        return found

    monkeypatch.setattr("ddpm_ip.evaluate.evaluate.collect", look)
    comparison = compared(reference)
    assert sorted(used) == ["logits.rows", "pool.rows"]
    assert list((tmp_path / "tmp").iterdir()) == []
    shutil.rmtree(collect.cache_folder())
    assert comparison.conclude(CPU) == tiny([FAKE], reference)


def test_what_is_compared_holds_on_to_no_model(reference: ImageSet) -> None:
    """Else the memory of a sampler would stay taken on the GPU, and be given back by the thread that concludes."""
    samples, extractor = (block for block in np.array_split(FAKE, 5)), Tiny(CPU)
    held = [weakref.ref(samples), weakref.ref(extractor)]
    comparison = evaluator(extractor).compare(open_samples(samples), reference, 40)
    del samples, extractor
    assert comparison is not None
    assert [ref() for ref in held] == [None, None]


def test_a_pass_that_fails_leaves_no_files(
    tmp_path: Path, reference: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocks() -> Iterator[np.ndarray]:
        yield FAKE
        assert {path.name for path in (tmp_path / "tmp").glob("*/fake/*")} == {"logits.rows", "pool.rows"}
        raise KeyboardInterrupt

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(KeyboardInterrupt):
        tiny(blocks(), reference)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_conclusions_leave_the_random_state_alone(reference: ImageSet) -> None:
    """Else one drawn in a thread would change the training beside it."""
    comparison = compared(reference)
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()  # type: ignore[union-attr]  # noqa: NPY002
    threads = torch.get_num_threads()
    assert set(comparison.conclude(CPU).values) >= {"FD-tiny", "CS-tiny", "KD-tiny", "precision-tiny", "sFD-tiny"}
    after = np.random.get_state()[1], torch.get_rng_state(), random.getstate()  # type: ignore[union-attr]  # noqa: NPY002
    assert np.array_equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    assert torch.get_num_threads() == threads


def test_an_empty_folder_is_named_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^no image file"):
        open_samples(tmp_path / "empty")


def test_fewer_images_than_asked_for_are_refused(tmp_path: Path, reference: ImageSet) -> None:
    with pytest.raises(DataError, match="71 images were asked for, and there are 70"):
        tiny(png_folder(tmp_path / "png"), reference, n_images=71)
    with pytest.raises(DataError, match="71 images were asked for, and there are 70"):
        tiny([FAKE], reference, n_images=71)


def test_the_first_images_are_taken_and_no_more_are_made(reference: ImageSet) -> None:
    made = []

    def blocks() -> Iterator[np.ndarray]:
        for i in range(0, 70, 20):
            made.append(i)
            yield FAKE[i : i + 20]

    some = tiny(blocks(), reference, n_images=30)
    assert some.protocol["n_images"] == 30
    assert made == [0, 20]
    assert some.values == pytest.approx(tiny([FAKE[:30]], reference).values, rel=1e-9)


def test_what_speaks_against_a_comparison_is_said(reference: ImageSet) -> None:
    found = " ".join(tiny([pictures(11, 0, 8)], reference, metrics=["fid", "kid"]).warnings)
    for part in ("too few for 12 features", "3 x 8 x 8, the reference is 3 x 16 x 16", "subsets of 11"):
        assert part in found
    gray = tiny([FAKE[:, :1]], reference, metrics=["fid"]).warnings
    assert any("gray" in line for line in gray)
    assert tiny([FAKE], reference, metrics=["fid"]).warnings == []


def test_features_of_another_length_are_refused(reference: ImageSet) -> None:
    with pytest.raises(DataError, match="bring them to one size"):
        evaluate([pictures(20, 0, 8)], reference, extractor=find_extractor("pixels", CPU), metrics=["fid"], device=CPU)


def test_what_is_no_image_is_refused(tmp_path: Path, reference: ImageSet) -> None:
    with pytest.raises(DataError, match="uint8"):
        tiny([FAKE.astype(np.float32)], reference)
    with pytest.raises(DataError, match="all of one shape"):
        tiny([FAKE, pictures(3, 0, 8)], reference)
    folder = png_folder(tmp_path / "png", FAKE[:3])
    save_png(pictures(1, 0, 8)[0], folder / "000003.png")
    with pytest.raises(DataError, match="16 x 16 and of 8 x 8"):
        tiny(folder, reference)


@pytest.mark.parametrize("name", ["0.jpg", "0.png"])
def test_jpeg_is_refused_by_its_bytes(tmp_path: Path, reference: ImageSet, name: str) -> None:
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / name, format="JPEG")
    with pytest.raises(DataError, match="a JPEG"):
        tiny(tmp_path, reference)


def test_an_extractor_that_does_not_give_what_is_asked_for(reference: ImageSet) -> None:
    with pytest.raises(ConfigError, match="gives pool"):
        evaluate([FAKE], reference, extractor=find_extractor("pixels", CPU), metrics=["isc"], device=CPU)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fd", "choose inception"),
        ("tests.nowhere:Tiny", "PYTHONPATH"),
        ("tests.tiny_extractor:Big", "Big"),
        ("tests.tiny_extractor:nameless", "no extractor"),
        (":Tiny", "package.module:object"),
        ("json:dumps", "could not be made: called with the device"),
        ("tests.tiny_extractor:Deviceless", "could not be made"),
        ("tests.tiny_extractor:Unnamable", "identity.. must be a mapping of plain values"),
    ],
)
def test_an_extractor_that_is_none(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_extractor(name, CPU)


def test_no_extractor_can_pass_for_inception(monkeypatch: pytest.MonkeyPatch, reference: ImageSet) -> None:
    assert find_extractor("tiny_extractor:ready", CPU).name == "tiny"
    monkeypatch.setattr(Tiny, "name", "inception")
    with pytest.raises(ConfigError, match="neither inception"):
        find_extractor("tests.tiny_extractor:Tiny", CPU)
    assert set(tiny([FAKE], reference, metrics=["fid"]).values) == {"FD-inception"}


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda images: images.double().flatten(1), "gives a Tensor; it must be a mapping"),
        (lambda images: {"pool": images.double().flatten(1).numpy()}, "pool as ndarray of shape .32, 768."),
        (lambda images: {"pool": torch.tensor(1.0)}, "pool as Tensor of shape ..; for|pool as Tensor of shape"),
        (lambda images: {0: images}, "gives 0; what is asked for needs pool"),
        (lambda images: {"pool": images @ images[0, 0, 0, :3]}, "raised RuntimeError"),
    ],
)
def test_an_extractor_that_gives_something_else(
    reference: ImageSet, monkeypatch: pytest.MonkeyPatch, gives: Callable[[torch.Tensor], object], message: str
) -> None:
    monkeypatch.setattr(Tiny, "__call__", lambda self, images: gives(images))
    with pytest.raises(ConfigError, match=message):
        tiny([FAKE], reference, metrics=["fid"])


SLOW = """
import signal, sys
from tiny_extractor import Tiny
from ddpm_ip.cli import main

def slow(self, images):
    print("features are asked for", flush=True)
    signal.pause()

Tiny.__call__ = slow
main(sys.argv[1:])
"""


def test_sigterm_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    fake, real = (npz_file(tmp_path / name, FAKE) for name in ("fake.npz", "real.npz"))
    given = ["evaluate", fake, "--reference", real, "--extractor", "tiny_extractor:Tiny", "--metrics", "kid"]
    process = start("-c", SLOW, *given)
    wait_for(process, "features are asked for")
    assert list((tmp_path / "scratch").glob("ddpm-ip-*"))
    process.terminate()
    code, output = finish(process)
    assert code == 128 + signal.SIGTERM, output
    assert not list((tmp_path / "scratch").glob("ddpm-ip-*"))


def test_files_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    real = npz_file(tmp_path / "real.npz", REAL)
    for folder, images in (("a", FAKE), ("b", FAKE[:50])):
        (tmp_path / folder).mkdir()
        file = npz_file(tmp_path / folder / "x.npz", images[:50])
        given = ["--reference", str(real), "--extractor", "pixels", "--out", str(tmp_path / "all.json")]
        for _ in range(2):
            assert main(["evaluate", str(file), *given]) == 0
    assert len(json.loads((tmp_path / "all.json").read_text())) == 2


def test_what_is_measured_again_takes_the_place_of_what_was(tmp_path: Path) -> None:
    """Also by other versions; numbers that are not measured again stay, those of version 0.1 among them."""
    out = tmp_path / "all.json"
    lines = (ROOT / "tests/legacy/v0.1/run/evaluations.jsonl").read_text().splitlines()
    old = [{key: json.loads(line)[key] for key in ("values", "protocol", "warnings")} for line in lines]
    out.write_text(json.dumps(old[:1]))
    protocol = {"n_images": 9, "samples_path": "/a", "line": "", "metrics": ["fid"], "versions": {"torch": "1"}}
    keep(out, Evaluation({"FD-x": 1.0}, protocol, []))
    keep(out, Evaluation({"FD-y": 2.0}, protocol, []))
    keep(out, Evaluation({"FD-x": 3.0, "KD-x": 4.0}, {**protocol, "versions": {}, "metrics": ["fid", "kid"]}, []))
    keep(out, Evaluation({"FD-x": 5.0}, {**protocol, "samples_path": "/b"}, []))
    keep(out, Evaluation({"FD-x": 6.0}, protocol, []))  # the kernel distance is not measured again
    rows = json.loads(out.read_text())
    assert [row["values"] for row in rows] == [
        old[0]["values"], {"FD-y": 2.0}, {"FD-x": 3.0, "KD-x": 4.0}, {"FD-x": 5.0}, {"FD-x": 6.0},
    ]  # fmt: skip


def test_evaluations_that_are_added_together_are_all_kept(tmp_path: Path) -> None:
    """By threads, which even share the name of a temporary file; and in a folder that none of them finds."""
    out, failed = tmp_path / "new" / "all.json", []

    def add(name: str) -> None:
        try:
            for i in range(8):
                protocol = {"n_images": 9, "samples_path": f"/{name}/{i}", "line": ""}
                keep(out, Evaluation({"FD-x": float(i)}, protocol, []))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = sorted(row["protocol"]["samples_path"] for row in json.loads(out.read_text()))
    assert found == [f"/{name}/{i}" for name in "abcd" for i in range(8)]
    assert [path.name for path in out.parent.iterdir()] == ["all.json"]


def planted(where: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Changes what is kept of a reference as somebody else might."""
    manifest = where / collect.MANIFEST
    about = json.loads(manifest.read_text())
    if what == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    elif what == "pipe":
        (where / "pool.rows").unlink()
        os.mkfifo(where / "pool.rows")
    elif what == "link":
        (where / "pool.rows").rename(where / "elsewhere")
        (where / "pool.rows").symlink_to(where / "elsewhere")
    elif what == "moments":
        (where / "pool.moments").write_bytes(bytes(8 * 13))
        about["sha256"]["pool.moments"] = hashlib.sha256(bytes(8 * 13)).hexdigest()
    else:
        key, value = json.loads(what)
        about[key] = value
    manifest.write_text(json.dumps(about))


@pytest.mark.parametrize(
    "what",
    [
        "owner",
        "pipe",
        "link",
        "moments",
        '["count", 91]',
        '["count", -1]',
        '["shape", [3, 16]]',
        '["shape", ["3", 16, 16]]',
        '["sha256", {}]',
        '["sha256", {"pool.rows": 3}]',
        '["rows", {}]',
        '["rows", {"pool": [0, "<f4"]}]',
        '["rows", {"pool": [12, "|O"]}]',
        '["rows", {"pool": [7, "<f8"]}]',
        '["rows", {"pool": 3}]',
        '["rows", {"pool": [12.0, "<f8"]}]',
    ],
)
def test_what_somebody_planted_for_a_reference_is_not_believed(
    reference: ImageSet, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    expected = tiny([FAKE], reference).values
    (where,) = collect.cache_folder().iterdir()
    planted(where, monkeypatch, what)
    extractor = Tiny(CPU)
    assert tiny([FAKE], reference, extractor).values == expected
    assert sum(shape[0] for shape in extractor.seen) == 70 + 90


def test_features_are_kept_in_the_precision_in_which_they_come(reference: ImageSet) -> None:
    class Single(Tiny):
        def __call__(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return {kind: rows.float() for kind, rows in super().__call__(images).items()}

        def identity(self) -> Mapping[str, object]:
            return {"precision": "float32"}

    for extractor, size in ((Tiny(CPU), 8), (Single(CPU), 4)):
        tiny([FAKE], reference, extractor)
        sizes = {path.stat().st_size for path in collect.cache_folder().glob("*/pool.rows")}
        assert 90 * 12 * size in sizes


def test_samples_that_say_little_or_nonsense_of_themselves_are_measured(tmp_path: Path) -> None:
    folder = png_folder(tmp_path / "png")
    given = [
        "evaluate",
        str(folder),
        "--reference",
        str(npz_file(tmp_path / "real.npz", REAL)),
        "--extractor",
        "pixels",
    ]
    for n, mark in enumerate(({"sampler": "ancestral"}, {"sampler": {"nom": 3}}, {"steps": "many", "sampler": []}), 1):
        (folder / "sampling.json").write_text(json.dumps(mark))
        assert main(given) == 0
        assert len(json.loads((folder / "evaluation.json").read_text())) == n


def test_a_reference_of_another_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "real").mkdir()
    parquet_file(tmp_path / "real" / "test-0.parquet", png_folder(tmp_path / "png", REAL))
    data = f"{{name: parquet, root: {tmp_path / 'real'}, split: test, image_size: 16}}"
    (tmp_path / "ref.yaml").write_text(f"data: {data}\n")
    file = npz_file(tmp_path / "fake.npz", FAKE)
    given = ["--reference", str(tmp_path / "ref.yaml"), "--extractor", "pixels"]
    assert main(["evaluate", str(file), *given]) == 0
    assert "FD-pixels" in capsys.readouterr().out
    assert main(["evaluate", str(file), *given, "--metrics", ","]) == 2
    assert "got none" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, real = png_folder(tmp_path / "png"), npz_file(tmp_path / "real.npz", REAL)
    (folder / "sampling.json").write_text(json.dumps({"sampler": "ancestral", "steps": 50, "weights": "ab" * 32}))
    assert main(["evaluate", str(folder), "--reference", str(real), *TINY]) == 0
    shown = capsys.readouterr().out
    for part in ("FD-tiny", "CS-tiny", " ± ", "steps 50", "weights abababab…", "70 images 3 x 16 x 16"):
        assert part in shown
    assert main(["evaluate", str(folder), "--reference", str(real), *TINY]) == 0
    assert main(["evaluate", str(folder), "--reference", str(real), "--extractor", "pixels"]) == 0
    rows = json.loads((folder / "evaluation.json").read_text())
    assert [row["protocol"]["extractor"] for row in rows] == ["tiny", "pixels"]
    assert rows[0]["protocol"]["sampling"]["steps"] == 50
    assert rows[0]["protocol"]["rounding"] == "to the nearest of 256 levels"
    assert rows[1]["warnings"]


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.json"
    out.write_text('{"mine": 1}')
    samples = npz_file(tmp_path / "a.npz", FAKE)
    given = ["evaluate", str(samples), "--reference", "digits", "--extractor", "pixels"]
    assert main([*given, "--out", str(out)]) == 1
    assert "--out" in capsys.readouterr().err
    assert out.read_text() == '{"mine": 1}'


def test_a_link_to_write_through_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link.json").symlink_to("nowhere.json")
    assert (
        main(["evaluate", str(tmp_path / "no samples"), "--reference", "digits", "--out", str(tmp_path / "link.json")])
        == 1
    )
    assert "link.json is a symbolic link to nowhere.json" in capsys.readouterr().err


def test_references_by_name_configuration_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = Digits().open().pixels[:100]
    samples = npz_file(tmp_path / "a.npz", digits)
    config = tmp_path / "digits.yaml"
    config.write_text("data: {name: digits}\nmodel: {in_channels: 1}\n")
    real = png_folder(tmp_path / "real", digits[:30])
    from PIL import Image

    Image.new("L", (20, 20)).save(real / "000000.jpg")
    for reference, n in (("digits", 1797), (str(config), 1797), (str(real), 31)):
        out = tmp_path / f"{n}.json"
        given = ["--reference", reference, "--extractor", "pixels", "--out", str(out)]
        assert main(["evaluate", str(samples), *given]) == 0
        row = json.loads(out.read_text())[-1]
        assert row["protocol"]["n_reference"] == n
    assert any("JPEG" in line for line in row["warnings"])
    assert any("1 images of the reference were resized" in line for line in row["warnings"])
    assert main(["evaluate", str(samples), "--reference", "cifar100", "--extractor", "pixels"]) == 2
    assert "cifar10-train" in capsys.readouterr().err


def test_two_processes_give_the_numbers_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 images in blocks of 16: 3 blocks for one process, 2 for the other, the last one short."""
    folder, real = png_folder(tmp_path / "png"), npz_file(tmp_path / "real.npz", REAL)
    given = [str(folder), "--reference", str(real), *TINY, "--batch_size", "16", "--n_samples", "67", "--out"]
    assert main(["evaluate", *given, str(tmp_path / "one.json")]) == 0
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "other"))
    code, output = finish(start(*TORCHRUN, ROOT / "scripts/evaluate.py", *given, tmp_path / "two.json"))
    assert code == 0, output
    assert output.count("sFD-tiny") == 1
    one, two = (json.loads((tmp_path / f"{name}.json").read_text())[0] for name in ("one", "two"))
    assert two["values"] == pytest.approx(one["values"], rel=1e-6)
    assert two["protocol"]["line"] == one["protocol"]["line"]


def test_two_processes_that_make_images_themselves(tmp_path: Path, reference: ImageSet) -> None:
    """Each passes its own blocks and gets the same result; they stop together; and too few are refused by both."""

    def call() -> None:
        engine, found = start_engine("no"), {}
        mine = range(engine.process_index * 16, 70, engine.num_processes * 16)
        for n in (60, 71):
            try:
                blocks = (FAKE[i : i + 16] for i in mine)
                options = {"extractor": Tiny(engine.device), "metrics": ALL, "n_images": n, "device": engine.device}
                found[n] = evaluate(blocks, reference, **options).values
            except DataError as error:
                found[n] = str(error)
        (tmp_path / f"{engine.process_index}.json").write_text(json.dumps(found))

    assert two_processes(call) == [0, 0]
    expected = tiny([FAKE], reference, n_images=60).values
    for process in range(2):
        found = json.loads((tmp_path / f"{process}.json").read_text())
        assert found["60"] == pytest.approx(expected, rel=1e-6)
        assert "71 images were asked for, and there are 70" in found["71"]


def test_c56_as_an_extractor_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapped benchmark gives what the benchmark gives; with random weights in the classifier's format."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import c56
    import cifar_features

    torch.manual_seed(0)
    net = cifar_features.ResNet56()
    path = tmp_path / "classifier.th"
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, path)
    monkeypatch.setenv("C56_CLASSIFIER", str(path))
    fake, real = pictures(12, 0, 32), pictures(14, 1, 32)
    images = from_arrays(real, None, "real", 32)
    extractor = find_extractor("c56:C56", CPU)
    found = Evaluator(extractor, ["fid", "isc"], CPU, batch_size=5).evaluate(open_samples([fake]), images)
    scale = np.array(json.loads(c56.SCALE.read_text())["scale"])
    a, b = (cifar_features.extract(net.eval(), x)[0] / scale for x in (fake, real))
    expected = cifar_features.frechet_distance(a, b)
    assert found.values["FD-C56"] == pytest.approx(expected, rel=1e-5)  # theirs has the noise of rounded zeros
    assert set(found.values) == {"FD-C56", "CS-C56", "CS-C56_std"}
    monkeypatch.delenv("C56_CLASSIFIER")
    with pytest.raises(Exception, match="C56_CLASSIFIER"):
        find_extractor("c56:C56", CPU)
    assert "torchvision" not in sys.modules


def deep(n: int, seed: int, channels: int, height: int = 6, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


@pytest.mark.parametrize("channels", [2, 4, 16])
def test_networks_of_rgb_images_refuse_other_channels(channels: int) -> None:
    real = from_arrays(deep(20, 0, channels), None, "real", (6, 10))
    with pytest.raises(ConfigError, match=f"tiny takes RGB or gray images, and these have {channels}") as caught:
        tiny([deep(20, 1, channels)], real)
    assert "--extractor pixels" in str(caught.value)
    assert ("composite" in str(caught.value)) == (channels == 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 16])
def test_pixels_are_taken_of_any_number_of_channels(channels: int) -> None:
    """Two sets of constants: the distance is that of their means, (1/5)^2 a feature."""
    low, high = (np.full((20, channels, 6, 10), value, np.uint8) for value in (51, 102))
    found = evaluate(
        [low], from_arrays(high, None, "high", (6, 10)), extractor=Pixels(CPU), metrics=["fid"], device=CPU
    )
    assert found.values["FD-pixels"] == pytest.approx(channels * 60 / 25, rel=1e-6)
    assert found.protocol["image_shape"] == [channels, 6, 10]


def test_more_channels_than_an_image_can_have() -> None:
    with pytest.raises(DataError, match="C at most 16"):
        tiny([deep(20, 0, 17)], from_arrays(REAL, None, "real", 16))


def test_images_that_are_no_squares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PNG, and a folder of larger references, which are brought to the size of the samples."""
    samples = png_folder(tmp_path / "png", deep(20, 0, 3))
    references = png_folder(tmp_path / "real", deep(20, 1, 3, 12, 21))
    assert open_samples(samples).shape == (3, 6, 10)
    assert main(["evaluate", str(samples), "--reference", str(references), "--extractor", "pixels"]) == 0
    shown = capsys.readouterr().out
    assert "20 images of the reference were resized to 10 x 6 pixels" in shown
    save_png(deep(1, 2, 3, 10, 6)[0], samples / "000020.png")
    with pytest.raises(DataError, match="there are images of 10 x 6 and of 6 x 10 pixels"):
        tiny(samples, from_arrays(deep(20, 1, 3), None, "real", (6, 10)))


def test_transparency_is_composited_unless_the_samples_are_said_to_have_four_channels(tmp_path: Path) -> None:
    samples = png_folder(tmp_path / "png", deep(20, 0, 4))
    (block,) = open_samples(samples).blocks(20, None)
    assert block.shape == (20, 3, 6, 10)
    (samples / "sampling.json").write_text('{"channels": 4}')
    (block,) = open_samples(samples).blocks(20, None)
    np.testing.assert_array_equal(block, deep(20, 0, 4))


def test_the_distance_of_two_halves_of_images_that_are_no_squares() -> None:
    images = from_arrays(deep(40, 0, 5), None, "deep", (6, 10))
    assert 0 < floor(images, Pixels(CPU), ["fid"], CPU)["FD-pixels"] < 300


def test_a_home_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_IP_CACHE", "~nobody-has-this-name/cache")
    with pytest.raises(ConfigError, match=r"~nobody-has-this-name/cache: there is no such home\. Give"):
        collect.cache_folder()


def test_commands_on_a_run_take_the_same_references_but_statistics(tmp_path):
    (tmp_path / "images").mkdir()
    assert reference_images(None, (1, 8, 8)) is None
    assert reference_images("digits", (1, 8, 8)) == Digits()
    found = reference_images(str(tmp_path / "images"), (1, 8, 8))
    assert (found.name, found.image_size) == ("folder", (8, 8))
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(ConfigError, match="holds statistics, and here images are needed"):
        reference_images(str(tmp_path / "statistics.npz"), (1, 8, 8))
