#!/usr/bin/env bash
# Second call: on one card what is added to a training step, on the other today beside an earlier commit in $KEEP/old; and
# the GPU tests that the first call did not have, chosen by $TESTS. $OUT gets the results.
set -u
OUT=${OUT:?where the results go}
HERE=$(dirname "$0")
( export CUDA_VISIBLE_DEVICES=0
  python3 $HERE/training_extras.py --commit $COMMIT --out $OUT/training_extras.json > $OUT/extras.log 2>&1; echo "extras: $SECONDS s"
  timeout 150 python3 -m pytest tests/gpu -m gpu -n 4 -k "$TESTS" -rfEs --tb=short -p no:cacheprovider > $OUT/tests.txt 2>&1; tail -n 3 $OUT/tests.txt; echo "tests: $SECONDS s" ) &
( export CUDA_VISIBLE_DEVICES=1
  python3 $HERE/against_0_1.py --old $KEEP/old --old_commit 5187938 --pairs 3 --table_images 0 --commit $COMMIT --out $OUT/against.json > $OUT/against.log 2>&1; echo "against: $SECONDS s" ) &
wait
tail -n 12 $OUT/extras.log; tail -n 30 $OUT/against.log
