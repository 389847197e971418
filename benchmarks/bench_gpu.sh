#!/usr/bin/env bash
# The speed of the CIFAR-10 network on GPUs, beside plain PyTorch and diffusers, in calls of less than nine minutes.
#
#   bash benchmarks/bench_gpu.sh one [32|64|128]   # one GPU; the size of the images, 32 by default
#   bash benchmarks/bench_gpu.sh two               # two GPUs, 32x32 images; batches are over both
#
# Results go to RESULTS (default: benchmarks/results), one JSON a call. What follows is passed on, as in
#   bash benchmarks/bench_gpu.sh one 32 --train.mixed_precision bf16     # plain PyTorch in bf16, too
set -euo pipefail
cd "$(dirname "$0")/.."
RESULTS=${RESULTS:-benchmarks/results} PYTHON=${PYTHON:-python3}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$RESULTS"

case "${1:-}" in
  one)
    size=${2:-32}
    case "$size" in
      32) batches="128 512 1024" ;;
      64) batches="64 256" ;;
      128) batches="16 64" ;;
      *) echo "the size is 32, 64 or 128"; exit 2 ;;
    esac
    # shellcheck disable=SC2086
    timeout 530 "$PYTHON" scripts/bench.py train sample data --batch $batches --out "$RESULTS" --data.image_size "$size" \
      "${@:3}" ;;
  two)
    timeout 530 "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node 2 scripts/bench.py train sample data \
      --batch 256 1024 2048 --out "$RESULTS" "${@:2}" ;;
  *) echo "say one or two"; exit 2 ;;
esac
