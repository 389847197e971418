#!/usr/bin/env bash
# The real run: configs/ddpm_ip_cifar10.yaml on the real CIFAR-10, on one GPU, in pieces of less than ten minutes.
#
#   DATA=folder of the CIFAR-10 Parquet shards   CLASSIFIER=resnet56-4bfd9763.th   RUN=runs/cifar10_h200
#   bash benchmarks/real_run.sh train     # 5 minutes of training, then SIGTERM: it saves and leaves
#   bash benchmarks/real_run.sh resume    # continues with -r latest for 5 more minutes
#   bash benchmarks/real_run.sh sample    # 10,000 images each at 10, 50 and 100 steps, fixed-small variance
#   bash benchmarks/real_run.sh score     # FD-C56, CS-C56 -> benchmarks/results/cifar10_h200.json, grid -> docs/
#
# Beside the published recipe: bf16, batch 512 (the learning rate as in the recipe) and an EMA of 0.999, since ten minutes
# are some thousand steps, over which 0.9999 would still average in the first, untrained weights.
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data/cifar10} RUN=${RUN:-runs/cifar10_h200} MINUTES=${MINUTES:-5} PYTHON=${PYTHON:-python3}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"

train() {
  timeout --signal=TERM "$((MINUTES * 60))" "$PYTHON" scripts/train_ddpm_ip.py -c configs/ddpm_ip_cifar10.yaml -e "$RUN" \
    --data.root "$DATA" --train.mixed_precision bf16 --train.batch_size 512 --train.ema_decay 0.999 \
    --train.lr_warmup 500 --train.print_freq 100 --train.save_freq 1000 --train.sample_freq 2000 "$@" || [ $? -eq 124 ]
}

case "$1" in
  train) train ;;
  resume) train -r latest ;;
  sample)
    for steps in 10 50 100; do
      "$PYTHON" scripts/sample_uncond.py -c "$RUN/config.yaml" --weights "$RUN" --n_samples 10000 --batch_size 1000 \
        --save_dir "$RUN-samples/fixed_small-$steps" --var_type fixed_small --respace_steps "$steps"
    done ;;
  score)
    "$PYTHON" benchmarks/score.py --real "$DATA" --classifier "$CLASSIFIER" --run "$RUN" \
      --out "benchmarks/results/$(basename "$RUN").json" "$RUN"-samples/fixed_small-{10,50,100}
    "$PYTHON" benchmarks/picture.py "$RUN-samples/fixed_small-100" "docs/$(basename "$RUN").png" ;;
  *) echo "say train, resume, sample or score"; exit 2 ;;
esac
