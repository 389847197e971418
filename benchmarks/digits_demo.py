"""Runs the demo in an empty folder and keeps its numbers, what they took, and a picture.

    python benchmarks/digits_demo.py runs/demo-record

Writes benchmarks/results/digits_demo.json and docs/demo.png. The load averages say whether anything else was running.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from ddpm_ip.files import read_json, write_json
from ddpm_ip.run.record import records
from ddpm_ip.run.row import row_label

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "ddpm_ip", "demo"]
RUNS = ("ddpm", "ddpm-ip")
PICTURE = "ddpm-ip/samples/step00003000.png"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    out = parser.parse_args().out
    if out.exists():
        parser.error(f"{out} exists already")
    load, begun, date = os.getloadavg()[0], time.time(), datetime.now()
    subprocess.run([*COMMAND, str(out)], check=True)
    seconds, used = time.time() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    provenance = read_json(out / RUNS[0] / "provenance.json")
    first = min(path.stat().st_mtime for path in out.glob("*/samples/step*.png"))
    record = {
        "date": f"{date:%Y-%m-%d}",
        "command": "make demo (python benchmarks/digits_demo.py)",
        **{key: provenance[key] for key in ("hardware", "versions", "git")},
        "load_average": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        "seconds": round(seconds),
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        "first_picture_seconds": round(first - begun),
        "rows": {run: rows(out / run) for run in RUNS},
    }
    write_json(ROOT / "benchmarks/results/digits_demo.json", record)
    shutil.copy(out / PICTURE, ROOT / "docs/demo.png")
    return 0


def rows(run: Path) -> list[dict]:
    """The numbers of a run: those of all its calls of the table are next to the protocol."""
    (table,) = run.glob("table/*/table.json")
    found = [record for row in read_json(table)["results"] for record in records(row, str(table))]
    return [
        {"row": row_label(r.sampling), "steps": r.sampling["steps"], "metric": r.metric, "value": r.value}
        for r in found
    ]


if __name__ == "__main__":
    sys.exit(main())
