#!/usr/bin/env bash
# Samplers on two networks, on a machine with two GPUs: the trained one that $KEEP holds, and its twin with gamma 0, which
# is trained here. Everything lies in $KEEP: the network (cifar10_ip_19k.yaml, .safetensors), the classifier, the
# statistics, the Parquet shards in data/, and the files of the calls before it (scan, corrections, closer, reference).
#
#   bash benchmarks/samplers_gpu.sh scan                 # 450 s on two H200: samplers x times, corrections
#   bash benchmarks/samplers_gpu.sh closer               # 220 s: times that are optimised, closer to what was good
#   bash benchmarks/samplers_gpu.sh twin SECONDS         # 450 s: the twin is trained and scanned; analytic, winners
set -u
KEEP=${KEEP:?the folder of the network, see above}
HERE=$(dirname "$0")
export PYTHONPATH=${PYTHONPATH:-}:$HERE
NETWORK="--config $KEEP/cifar10_ip_19k.yaml --weights $KEEP/cifar10_ip_19k.safetensors"
TWIN="--config $KEEP/cifar10_ip_19k.yaml --weights $KEEP/twin.safetensors"
SCORE="--classifier $KEEP/resnet56-4bfd9763.th --statistics $KEEP/c56_train_stats.npz --commit ${COMMIT:-unknown}"
NAME="DDPM-IP, gamma 0.1, the 35.7M U-Net, 18,911 steps of 128 images, 285 s on one H100"
TWIN_NAME="DDPM, gamma 0, else the same: the 35.7M U-Net, 18,911 steps of 128 images, on one H200"

# measure FILE LIST SECONDS ARGUMENTS...: rows of a list on the network
measure() { local file=$1 list=$2 seconds=$3; shift 3
  python3 $HERE/samplers.py $list --out $KEEP/$file.json $NETWORK $SCORE --network "$NAME" --seconds $seconds "$@" > $KEEP/$file.log 2>&1; }
measure_twin() { local file=$1 list=$2 seconds=$3; shift 3
  python3 $HERE/samplers.py $list --out $KEEP/$file.json $TWIN $SCORE --network "$TWIN_NAME" --seconds $seconds "$@" > $KEEP/$file.log 2>&1; }
command() { python3 -c "import sys; from ddpm_ip.cli import main; sys.exit(main(sys.argv[1:]))" "$@"; }
on() { export CUDA_VISIBLE_DEVICES=$1; }

case $1 in
scan)
  for g in 0 1; do (on $g; measure scan$g scan 500 --part $g/2; measure corr$g corrections $((530 - SECONDS)) --part $g/2) & done; wait ;;
closer)
  (on 0; command times -c $KEEP/cifar10_ip_19k.yaml --weights $KEEP/cifar10_ip_19k.safetensors --sampler dpm_solver --steps 6 10 20)
  for g in 0 1; do (on $g; measure closer$g closer 260 --part $g/2; measure reference$g reference 200 --part $g/2) & done; wait ;;
twin)
  end=$2
  files=$(ls $KEEP/scan?.json $KEEP/corr?.json $KEEP/closer?.json $KEEP/reference?.json)
  ( on 0
    command train -c $KEEP/cifar10_ip_19k.yaml -e $KEEP/twin --data.root $KEEP/data --perturbation.gamma 0 \
      --train.n_steps 18911 --train.save_freq 18911 > $KEEP/train.log 2>&1
    cp "$(ls -d $KEEP/twin/ckpt/*/ | tail -1)ema.safetensors" $KEEP/twin.safetensors
    touch $KEEP/trained; echo "trained after $SECONDS s"
    command times -c $KEEP/cifar10_ip_19k.yaml --weights $KEEP/twin.safetensors --sampler dpm_solver --steps 6 10 20
    measure_twin twin0 scan $((end - 45 - SECONDS)) --part 0/2
    measure_twin twin2 optimised $((end - 15 - SECONDS))
    measure winners0 winners $((end - SECONDS)) --of $files --images 10000 --part 0/2 ) &
  ( on 1
    command times -c $KEEP/cifar10_ip_19k.yaml --weights $KEEP/cifar10_ip_19k.safetensors --sampler dpm_solver --steps 6 10 20
    measure reference2 reference 30
    measure analytic analytic 45 --data $KEEP/data
    measure winners1 winners 210 --of $files $KEEP/reference2.json $KEEP/analytic.json --images 10000
    for _ in $(seq 200); do [ -e $KEEP/trained ] && break; sleep 1; done
    measure_twin twin1 scan $((end - 30 - SECONDS)) --part 1/2
    measure winners1 winners $((end - SECONDS)) --of $files $KEEP/reference2.json $KEEP/analytic.json --images 10000 ) &
  wait ;;
esac
echo "$1: $SECONDS s"
