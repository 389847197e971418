"""What a container's quota, the scheduler and the user leave of the CPU's cores."""

import os
import subprocess
import sys

import pytest

from ddpm_ip import cores
from ddpm_ip.cli import main
from ddpm_ip.cores import main_memory, nodes, threads_said, usable


def groups(folder, files, membership="0::/job/step\n"):
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(text)
    (folder / "membership").write_text(membership)
    return folder / "groups", folder / "membership"


@pytest.fixture
def sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({}, "0::/\n", 16),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 16),
        ({"cpu.max": "300000 100000\n"}, "0::/\n", 3),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "20000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "6400000 100000\n"}, "0::/\n", 16),
        ({"job/step/cpu.max": "max 100000\n", "job/cpu.max": "500000 100000\n"}, "0::/job/step\n", 5),
        ({"job/step/cpu.max": "200000 100000\n", "job/cpu.max": "500000 100000\n"}, "0::/job/step\n", 2),
        ({"cpu.max": "200000 100000\n"}, "0::/../../elsewhere\n", 2),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", 16),
        ({"cpu,cpuacct/k/cpu.cfs_quota_us": "700000", "cpu,cpuacct/k/cpu.cfs_period_us": "100000"},
         "4:cpu,cpuacct:/k\n", 7),
        ({"cpu.max": "nonsense"}, "garbage\n", 16),
        ({"cpu.max": "100000 0"}, "0::/\n", 16),
    ],
)  # fmt: skip
def test_a_quota_leaves_fewer_cores(tmp_path, sixteen, files, membership, cores):
    assert usable(*groups(tmp_path, files, membership)) == cores


def test_without_control_groups_the_scheduler_decides(tmp_path, sixteen):
    assert usable(tmp_path / "none", tmp_path / "nothing") == 16


LAUNCHED = {"TORCHELASTIC_RUN_ID": "1"}


@pytest.mark.parametrize(
    ("environment", "parent", "threads"),
    [
        ({}, {}, None),
        ({"OMP_NUM_THREADS": "1"}, {}, 1),
        ({"OMP_NUM_THREADS": "3"}, {}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, {}, 4),
        ({"OMP_NUM_THREADS": "0"}, {}, None),
        ({"OMP_NUM_THREADS": "many"}, {}, None),
        ({"OMP_NUM_THREADS": "3", **LAUNCHED}, {}, 3),
        ({"OMP_NUM_THREADS": "1", **LAUNCHED}, {}, None),
        ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, {}, None),
        ({"OMP_NUM_THREADS": "1", **LAUNCHED}, {"OMP_NUM_THREADS": "1"}, 1),
    ],
)
def test_what_the_user_says_counts_and_what_launchers_say_does_not(environment, parent, threads):
    assert threads_said(environment, parent) == threads


@pytest.mark.parametrize(("said", "threads"), [("1", "1"), (None, "None")])
def test_the_launchers_own_environment_tells_them_apart(said, threads):
    """As a launcher does it: started with or without the user's word, it sets 1 for the process that it starts."""
    child = [sys.executable, "-c", "from ddpm_ip.cores import threads_said; print(threads_said())"]
    launcher = (
        "import os, subprocess, sys; os.environ['OMP_NUM_THREADS'] = '1'; subprocess.run(sys.argv[1:], check=True)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"TORCHELASTIC_RUN_ID": "none"}
    environment |= {"OMP_NUM_THREADS": said} if said else {}
    done = subprocess.run([sys.executable, "-c", launcher, *child], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == threads, done.stderr


@pytest.mark.parametrize(
    ("files", "membership", "limit"),
    [
        ({"memory.max": "1000000\n"}, "0::/\n", 1_000_000),
        ({"memory.max": "max\n"}, "0::/\n", None),
        ({"job/memory.max": "3000000\n", "memory.max": "9000000\n"}, "0::/job/step\n", 3_000_000),
        ({"memory/job/memory.limit_in_bytes": "5000000\n"}, "9:memory:/job\n", 5_000_000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "9:memory:/\n", None),
        ({"memory.max": "nonsense\n"}, "0::/\n", None),
    ],
)
def test_a_limit_leaves_less_memory(tmp_path, files, membership, limit):
    machine = main_memory(tmp_path / "none", tmp_path / "nothing")
    assert machine is None or machine > 50_000_000
    assert main_memory(*groups(tmp_path, files, membership)) == (machine if limit is None else limit)


def test_the_nodes_are_counted_as_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for world, local, wanted in ((None, None, 1), ("8", None, 1), ("8", "8", 1), ("16", "8", 2), ("2", "1", 2)):
        for name, value in (("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", local)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        assert nodes() == wanted


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}, "4"),
    ],
)
def test_a_command_gives_numpy_its_share_of_the_cores_whatever_a_launcher_says(monkeypatch, environment, wanted):
    """NumPy reads it as it is imported, so the command line must not wait for the engine."""
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "usable", lambda: 8)
    monkeypatch.setattr(cores, "_started_with", lambda process: {})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ.get("OMP_NUM_THREADS") == wanted
