#!/usr/bin/env bash
# The real table: DDPM-IP and plain DDPM trained at the same cost on the real CIFAR-10, on one GPU, and measured in FD-C56 under
# every variance and number of steps; in calls of less than ten minutes, each of which continues after an interruption.
#
#   DATA=folder of the CIFAR-10 Parquet shards   C56_CLASSIFIER=resnet56-4bfd9763.th
#   bash benchmarks/real_table.sh train ip      # MINUTES (4) of training, then SIGTERM: it saves
#   bash benchmarks/real_table.sh train ip      # the same call goes on: 8 minutes in all, with one stop and a resume
#   MINUTES=9 bash benchmarks/real_table.sh train ddpm    # as many steps as the first run has taken
#   bash benchmarks/real_table.sh table ip      # 10,000 images at 10, 50, 100 steps, then 2,000 at 1,000
#   bash benchmarks/real_table.sh table ddpm
#   bash benchmarks/real_table.sh keep          # tables and speeds -> benchmarks/results/real_table.json, grids -> docs/
#
# Beside the published recipe: an EMA of 0.999, since some minutes are some twenty thousand steps, over which 0.9999 would
# still average in the first, untrained weights; and 500 steps of warm-up.
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data/cifar10} RUNS=${RUNS:-runs/real_table} MINUTES=${MINUTES:-4} PYTHON=${PYTHON:-python3} IMAGES=${IMAGES:-10000}
export PYTHONPATH="src:benchmarks${PYTHONPATH:+:$PYTHONPATH}"
run="$RUNS-${2:-}"

train() {
  config=configs/ddpm_ip_cifar10.yaml steps=${STEPS:-800000}
  if [ "$1" = ddpm ]; then  # as many steps as the first run took
    config=configs/ddpm_cifar10.yaml
    newest=$(basename "$(ls -d "$RUNS"-ip/ckpt/step* | tail -n 1)")
    steps=$((10#${newest#step}))
  fi
  timeout --signal=TERM "$((MINUTES * 60))" "$PYTHON" scripts/train_ddpm_ip.py -c "${CONFIG:-$config}" -e "$run" -r latest \
    --data.root "$DATA" --train.ema_decay 0.999 --train.lr_warmup 500 --train.print_freq 200 \
    --train.save_freq 5000 --train.sample_freq 10000 --train.n_steps "$steps" "${@:2}" || [ $? -eq 124 ]
}

case "${1:-}-${2:-}" in
  train-ip | train-ddpm) train "${@:2}" ;;
  table-ip | table-ddpm)
    measure() { "$PYTHON" scripts/table.py -e "$run" --extractor c56:C56 --metrics fid isc "$@"; }
    measure --steps 100 50 10 --n_samples "$IMAGES" "${@:3}"
    cp "$run/table/table.json" "$run/table/few-steps.json"
    measure --steps 1000 --n_samples "$((IMAGES / 5))" "${@:3}"
    cp "$run/table/table.json" "$run/table/all-steps.json" ;;
  keep-)
    "$PYTHON" - "$RUNS" <<'PY'
import json, sys
from datetime import date
from pathlib import Path
sys.path.insert(0, "benchmarks")
from score import training
runs = {name: Path(f"{sys.argv[1]}-{name}") for name in ("ip", "ddpm")}
record = {"date": date.today().isoformat(), "made_by": "benchmarks/real_table.sh", "runs": {
    name: {"training": training(run), **{part: json.loads((run / f"table/{part}.json").read_text()) for part in ("few-steps", "all-steps")}}
    for name, run in runs.items()}}
Path("benchmarks/results/real_table.json").write_text(json.dumps(record, indent=1) + "\n")
PY
    both=$(comm -12 <(ls "$RUNS-ip/samples") <(ls "$RUNS-ddpm/samples") | tail -n 1)  # the newest grid of the same step
    for name in ip ddpm; do cp "$RUNS-$name/samples/$both" "docs/real_table_$name.png"; done ;;
  *) echo "say train ip, train ddpm, table ip, table ddpm or keep"; exit 2 ;;
esac
