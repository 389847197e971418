#!/usr/bin/env bash
# Exposure bias and calibration of two trained CIFAR-10 networks on a machine with four GPUs. $KEEP holds the networks
# (ip/ip.safetensors, twin/twin.safetensors), cifar10_ip_19k.yaml, the classifier, the statistics, and the Parquet shards
# in data/; results lie beside the networks.
#
#   bash benchmarks/exposure_gpu.sh cells SECONDS    # benchmarks/calibration.py, a process a GPU
#   bash benchmarks/exposure_gpu.sh curves           # ddpm-ip exposure, with and without corrections; how long it takes
set -u
KEEP=${KEEP:?the folder of the networks, see above}
HERE=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH=${PYTHONPATH:-}:$HERE
cd "$KEEP"
command() { python3 -c "import sys; from ddpm_ip.cli import main; sys.exit(main(sys.argv[1:]))" "$@"; }
on() { export CUDA_VISIBLE_DEVICES=$1; }
cells() { python3 "$HERE/calibration.py" --config cifar10_ip_19k.yaml --data data --classifier resnet56-4bfd9763.th --statistics c56_train_stats.npz \
  --out cells --network ip=ip/ip.safetensors --network plain=twin/twin.safetensors --commit "${COMMIT:-unknown}" --images 10000 --seeds 0 1 --scan 2000 "$@"; }
of() { local network=$1; shift  # a command on a network: of ip exposure ..., of twin calibrate ...
  local gamma=0.1; [ "$network" = twin ] && gamma=0
  command "$1" -c cifar10_ip_19k.yaml --weights "$network/$network.safetensors" "${@:2}" --data.root data --perturbation.gamma $gamma; }
curves() { local network=$1 sampler=$2 rows=$3  # the calibration, then all rows in one figure
  of "$network" calibrate --sampler "$sampler" --steps 50 > "$network-$sampler-calibrate.txt" 2>&1
  of "$network" exposure --sampler "$sampler" --corrections $rows --steps 50 --n 4000 --measure eps_norm delta energy \
    --batch_size 1000 -o "figures/$network-$sampler" > "$network-$sampler-exposure.txt" 2>&1; }

case $1 in
cells)
  for g in 0 1 2 3; do (on $g; cells --seconds "$2" > cells-$g.log 2>&1) & done; wait ;;
curves)
  (on 0; begin=$SECONDS
    of ip exposure --sampler ddim --steps 50 --n 10000 --measure eps_norm delta --batch_size 1000 > timed.txt 2>&1
    echo "eps_norm and delta of 10000 images, ddim, 50 steps, start and compilation included: $((SECONDS - begin)) s" >> timed.txt
    begin=$SECONDS
    of ip exposure --sampler ddim --steps 50 --n 10000 --measure eps_norm delta --batch_size 1000 --again > again.txt 2>&1
    echo "the same again, compiled before: $((SECONDS - begin)) s" >> timed.txt
    curves ip ddim "none auto epsilon_scaling,scale=0.99") &
  (on 1; curves ip fixed_small "none auto epsilon_scaling,scale=1.03") &
  (on 2; curves twin fixed_small "none auto") &
  (on 3; cells --seconds 100 --samplers fixed_small --steps 10 > cells-3.log 2>&1; curves twin ddim "none epsilon_scaling,scale=0.995") &
  wait; tail -n 3 timed.txt ;;
esac
echo "$1: $SECONDS s"
