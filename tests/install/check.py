"""Installs a fresh clone as a user would, and uses it: the check of `make test-install` (docs/releasing.md).

    python tests/install/check.py [--keep] [--python PYTHON ...]

With each Python of VERSIONS that is found here (this one, those on the PATH, pyenv's and uv's), or with those that are
given, in a temporary folder: the checkout's HEAD is cloned, a virtual environment made, torch installed alone, a wheel
built of the clone and installed with constraints.txt; then `ddpm-ip` trains, samples, evaluates and reports in a folder
of its own, and the extras come one by one. After each step `pip check` must be content and torch must be the same.
Packages come from wherever pip is configured to look. Python's own library is all that this program needs.

It ends with 1 if something is wrong. What pip could not install is named, and what depends on it is not checked; a
Python that is not here is named, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
CONFIG = """
data: {name: digits}
model: {name: unet, in_channels: 1, dim: 8, dim_mults: [1, 2], use_attn: [false, false], num_res_blocks: 1,
        num_groups: 4}
diffusion: {total_steps: 20}
perturbation: {name: input, gamma: 0.1}
train: {n_steps: 20, batch_size: 16, flip: false, ema_decay: 0.5, print_freq: 5, save_freq: 10, sample_freq: 10,
        n_samples: 4, sample_steps: 5, lr_warmup: 0}
"""
TO_PARQUET = """
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
images = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(Path("samples").glob("[0-9]*.png"))]
pq.write_table(pa.table({"image": images}), "samples.parquet")
"""
NEEDS = """
import importlib.metadata, re
for wanted in importlib.metadata.requires("torch-fidelity") or ():
    print(re.match("[A-Za-z0-9_.-]+", wanted)[0].lower())
"""
COMMANDS = ("train", "sample", "evaluate", "data", "config", "table", "sweep", "exposure", "calibrate", "times")
COMMANDS += ("compare-samplers", "ema", "import", "export", "doctor", "report", "demo-ui")
COMMANDS += ("bench", "demo", "reproduce")


class Wrong(Exception):
    """Something is not as it must be; says what."""


class NotHere(Exception):
    """Packages that pip could not install."""


class Fresh:
    """A fresh virtual environment and an empty folder, where nothing of the checkout can be seen.

    Args:
        home: where all of it is.
        python: the interpreter.
    """

    def __init__(self, home: Path, python: Path) -> None:
        self.clone, self.wheels, self.work = home / "clone", home / "wheels", home / "work"
        self.work.mkdir()
        subprocess.run([python, "-m", "venv", home / "venv"], check=True)
        self.bin = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DDPM_IP_", "VIRTUAL_ENV"))}
        self.env |= {"XDG_CACHE_HOME": str(home / "cache"), "DDPM_IP_WEIGHTS": str(home / "weights")}
        self.torch: dict[str, str] = {}

    def run(self, *command: str, code: int = 0) -> str:
        """What a program of the environment prints.

        Raises:
            Wrong: it ends with another exit code, or with a traceback.
        """
        done = subprocess.run(
            [self.bin / command[0], *command[1:]], cwd=self.work, env=self.env, capture_output=True, text=True
        )
        said = done.stdout + done.stderr
        if done.returncode != code or "Traceback (most recent call last)" in said:
            raise Wrong(f"{' '.join(command)} ended with {done.returncode} instead of {code}:\n{said.strip()[-4000:]}")
        return said

    def install(self, *wanted: str) -> None:
        """Installs packages with constraints.txt, from where pip is configured to look.

        Raises:
            NotHere: pip cannot; with what it says.
        """
        # pip's own cache is a cache of the person, not of this environment
        env = {k: v for k, v in self.env.items() if k != "XDG_CACHE_HOME"} | _given("XDG_CACHE_HOME")
        command = [self.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "-c", self.clone / "constraints.txt", *wanted],
            cwd=self.work,
            env=env,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-500:]]
            raise NotHere(f"pip install {' '.join(wanted)}: {' '.join(lines)}")

    def packages(self) -> dict[str, str]:
        """The versions of what is installed, by name."""
        listed = json.loads(self.run("python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
        return {package["name"].lower(): package["version"] for package in listed}

    def look(self, lacking: Sequence[str] = ()) -> None:
        """Whether torch is as it was, nothing came that must not, and `pip check` and the doctor are content.

        Args:
            lacking: what `pip check` may miss.

        Raises:
            Wrong: something is not so.
        """
        now = self.packages()
        if "torchvision" in now:
            raise Wrong("torchvision was installed")
        if heavy(now) != self.torch:
            raise Wrong(f"torch was touched: {heavy(now)} instead of {self.torch}")
        checked = subprocess.run([self.bin / "python", "-m", "pip", "check"], capture_output=True, text=True)
        missed = [
            line for line in checked.stdout.splitlines() if not any(f"requires {name}" in line for name in lacking)
        ]
        if checked.returncode and missed:
            raise Wrong(f"pip check: {'; '.join(missed)}")
        self.run("ddpm-ip", "doctor")


def heavy(packages: dict[str, str]) -> dict[str, str]:
    """torch and the packages of a CUDA build."""
    return {k: v for k, v in packages.items() if k in ("torch", "triton") or k.startswith(("nvidia-", "cuda-"))}


def clone(fresh: Fresh) -> None:
    """The checkout's HEAD, and nothing that is not committed."""
    if subprocess.run(["git", "-C", ROOT, "status", "--porcelain"], capture_output=True, text=True).stdout.strip():
        print("note: there are uncommitted changes, which are not checked: this is about HEAD")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, fresh.clone], check=True)


def install_torch(fresh: Fresh) -> None:
    """torch, first and alone, so that nothing else can choose another build of it."""
    fresh.install("torch")
    fresh.torch = heavy(fresh.packages())
    brought = len(fresh.torch) - 1
    print(f"note: torch {fresh.torch['torch']}" + (f", which brought {brought} packages of CUDA" if brought else ""))


def install_wheel(fresh: Fresh) -> None:
    """A wheel built of the clone; the package is then that of the environment, with all its files."""
    build = [fresh.bin / "python", "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*build, "-w", fresh.wheels, fresh.clone], capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"pip wheel: {done.stderr.strip()[-1000:]}")
    (wheel,) = fresh.wheels.glob("*.whl")
    fresh.install(str(wheel))
    where = Path(fresh.run("python", "-c", "import ddpm_ip; print(ddpm_ip.__file__)").strip())
    if fresh.clone in where.parents or fresh.bin.parent not in where.parents:
        raise Wrong(f"ddpm_ip is imported from {where}")
    source = fresh.clone / "src" / "ddpm_ip"
    tracked = subprocess.run(["git", "-C", source, "ls-files"], capture_output=True, text=True, check=True)
    if lost := [name for name in tracked.stdout.split() if not (where.parent / name).is_file()]:
        raise Wrong(f"the wheel lacks {', '.join(lost)}")


def use(fresh: Fresh) -> None:
    """The commands, without any extra; a report says which one it needs, and how to install it."""
    version = fresh.packages()["ddpm-ip"]
    if version not in fresh.run("ddpm-ip", "--version"):
        raise Wrong(f"ddpm-ip --version does not say {version}")
    fresh.run("ddpm-ip", "--help")
    fresh.run("python", "-m", "ddpm_ip", "--help")
    for command in COMMANDS:
        fresh.run("ddpm-ip", command, "--help")
    presets = sorted(path.stem for path in (fresh.clone / "configs").glob("*.yaml"))
    if lost := [name for name in presets if f"\n{name} " not in f"\n{fresh.run('ddpm-ip', 'config')}"]:
        raise Wrong(f"ddpm-ip config does not list {', '.join(lost)}")
    fresh.run("ddpm-ip", "data", "inspect", "-c", "ddpm_ip_digits")
    (fresh.work / "tiny.yaml").write_text(CONFIG)
    fresh.run("ddpm-ip", "train", "-c", "tiny.yaml", "-e", "run")
    fresh.run("ddpm-ip", "sample", "--weights", "run", "--n_samples", "32", "--save_dir", "samples")
    fresh.run("ddpm-ip", "evaluate", "samples", "--reference", "digits", "--extractor", "pixels")
    fresh.run("ddpm-ip", "doctor", "-e", "run")
    if 'pip install "ddpm-ip[plot]"' not in fresh.run("ddpm-ip", "report", "run", code=1):
        raise Wrong("a report without matplotlib does not say how to install it")
    if len(list((fresh.work / "samples").glob("[0-9]*.png"))) != 32:
        raise Wrong("sample did not make 32 images")
    fresh.look()


def with_plot(fresh: Fresh) -> None:
    fresh.install("ddpm-ip[plot]")
    fresh.run("ddpm-ip", "report", "run")
    if "<svg" not in (fresh.work / "report.html").read_text(encoding="utf-8"):
        raise Wrong("the report has no plots")
    fresh.look()


def with_log(fresh: Fresh) -> None:
    fresh.install("ddpm-ip[log]")
    fresh.run("ddpm-ip", "train", "-c", "tiny.yaml", "-e", "logged", "--train.n_steps", "10")
    if not list((fresh.work / "logged" / "tensorboard").glob("events*")):
        raise Wrong("nothing was logged for TensorBoard")
    fresh.look()


def with_parquet(fresh: Fresh) -> None:
    fresh.install("ddpm-ip[parquet]")
    fresh.run("python", "-c", TO_PARQUET)
    data = ("--data.name", "parquet", "--data.root", "samples.parquet", "--data.image_size", "8")
    if "32 images" not in fresh.run("ddpm-ip", "data", "inspect", *data):
        raise Wrong("32 images were not found in a Parquet file")
    fresh.look()


def with_eval(fresh: Fresh) -> None:
    """torch-fidelity as the documents say, without the torchvision that it asks for."""
    fresh.install("--no-deps", "torch-fidelity")
    said = fresh.run("ddpm-ip", "evaluate", "samples", "--reference", "digits", code=1)
    if "weights-inception" not in said:
        raise Wrong(f"evaluate without the Inception's weights does not name them:\n{said}")
    needs = set(fresh.run("python", "-c", NEEDS).split())
    fresh.look(lacking=sorted(needs - set(fresh.packages())))


STEPS = (clone, install_torch, install_wheel, use, with_plot, with_log, with_parquet, with_eval)
NEEDED = 4  # of the steps: without these nothing can be said


def _given(name: str) -> dict[str, str]:
    return {name: os.environ[name]} if name in os.environ else {}


def pythons() -> dict[str, Path]:
    """The interpreters of VERSIONS that are found here."""
    found = {".".join(map(str, sys.version_info[:2])): Path(sys.executable)}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in VERSIONS:
        named = [path for path in (shutil.which(f"python{version}"), _of_uv(version)) if path]
        places = [*map(Path, named), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
        if works := [path for path in places if _version(path) == version]:
            found.setdefault(version, works[0])
    return {version: found[version] for version in sorted(found, key=lambda v: int(v.partition(".")[2]))}


def _of_uv(version: str) -> str | None:
    if not shutil.which("uv"):
        return None
    done = subprocess.run(["uv", "python", "find", "--no-python-downloads", version], capture_output=True, text=True)
    return done.stdout.strip() or None


def _version(python: Path) -> str | None:
    """What an interpreter says; pyenv has names for those that are not installed."""
    say = "import sys, venv, ensurepip; print('{}.{}'.format(*sys.version_info))"
    try:
        done = subprocess.run([python, "-c", say], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def check(python: Path, keep: bool) -> list[str]:
    """All steps with one interpreter.

    Returns:
        What was not checked, since it could not be installed.

    Raises:
        Wrong, NotHere: something is wrong, or what everything needs could not be installed; says at which step.
    """
    home = Path(tempfile.mkdtemp(prefix="ddpm-ip-install-")).resolve()
    absent: list[str] = []
    try:
        fresh = Fresh(home, python)
        for number, step in enumerate(STEPS):
            name = step.__name__.replace("_", " ")
            try:
                step(fresh)
            except NotHere as error:
                if number < NEEDED:
                    raise NotHere(
                        f"{name}: {error}\npip looks where it is configured to (pip config list): there must be torch "
                        "and all of pyproject.toml"
                    ) from error
                absent.append(f"{name}: {error}")
                continue
            except (Wrong, subprocess.CalledProcessError) as error:
                raise Wrong(f"{name}: {error}") from error
            print(f"OK  {name}", flush=True)
    finally:
        if keep:
            print(f"kept: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return absent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the temporary folders")
    parser.add_argument("--python", nargs="+", type=Path, help="the interpreters, instead of those that are found")
    args = parser.parse_args()
    chosen = {_version(path) or str(path): path for path in args.python} if args.python else pythons()
    failed = False
    for version, python in chosen.items():
        print(f"--- Python {version}, {python}", flush=True)
        try:
            absent = check(python, args.keep)
        except (Wrong, NotHere, OSError, subprocess.CalledProcessError) as error:
            print(f"FAILED  {error}", flush=True)
            failed = True
            continue
        for text in absent:
            print(f"not checked  {text}")
        print("installed and used" + (f"; {len(absent)} extras could not be installed here" if absent else ""))
    if not args.python and (missing := [version for version in VERSIONS if version not in chosen]):
        print(f"not tried, since they are not here: Python {', '.join(missing)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
