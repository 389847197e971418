#!/usr/bin/env bash
# First call of a session on two GPUs: the tests, then ADM beside guided-diffusion on one card, and on the other what is
# added to a training step. $OUT gets the results.
set -u
OUT=${OUT:?where the results go}
HERE=$(dirname "$0")
command -v nvidia-smi > /dev/null && nvidia-smi -L
timeout 260 python3 -m pytest tests/gpu -m gpu -n 6 -rfEs --tb=short -p no:cacheprovider > $OUT/tests.txt 2>&1
tail -3 $OUT/tests.txt; echo "tests: $SECONDS s"
export HF_HUB_OFFLINE=1
( CUDA_VISIBLE_DEVICES=0 timeout $((560 - SECONDS)) python3 $HERE/adm.py --theirs $KEEP/theirs --commit $COMMIT --out $OUT/adm.json > $OUT/adm.log 2>&1; echo "adm: $SECONDS s" ) &
( CUDA_VISIBLE_DEVICES=1 timeout $((560 - SECONDS)) python3 $HERE/training_extras.py --commit $COMMIT --out $OUT/training_extras.json > $OUT/extras.log 2>&1; echo "extras: $SECONDS s" ) &
wait
tail -5 $OUT/adm.log $OUT/extras.log
