#!/usr/bin/env bash
# Several GPUs of one machine: speed, where it is lost, and whether they compute what one does. $KEEP gets the results,
# which `benchmarks/scaling.py join $KEEP` makes one file of. Everything runs on random images and weights.
#
#   bash benchmarks/scaling_gpu.sh same          # losses, images, kill -9 and resume; tests/gpu
#   bash benchmarks/scaling_gpu.sh speed [TAG]   # training and sampling on 1, 2, 4, ... GPUs; TAG tells repetitions apart
#   bash benchmarks/scaling_gpu.sh lost          # GPUs side by side without each other; other ways between them
#   bash benchmarks/scaling_gpu.sh sockets       # two nodes of one GPU each, emulated: the exchange goes through sockets
#   bash benchmarks/scaling_gpu.sh judge ["1 2"] # evaluate, table and sample, on so many GPUs (default: 1, 2, 4, ...)
set -u
KEEP=${KEEP:?a folder for the results}
HERE=$(cd "$(dirname "$0")" && pwd)
cd "$HERE/.."
GPUS=$(python3 -c "import torch; print(torch.cuda.device_count())")
COUNTS=$(for n in 1 2 4 8; do [ $n -le "$GPUS" ] && echo $n; done)
on() { local n=$1; shift; python3 -m torch.distributed.run --standalone --nproc_per_node "$n" "$@"; }
bench() { local n=$1 out=$2; shift 2; [ -e "$out" ] && return; on "$n" scripts/bench.py "$@" --against none --out "$out" >> "$KEEP/bench.txt" 2>&1; }
timed() { local name=$1 begin=$EPOCHREALTIME; shift; "$@"; python3 -c "print('$name', round($EPOCHREALTIME - $begin, 1))" >> "$KEEP/seconds.txt"; }
node() { local n=$1; shift  # a node of one GPU, to which another is as far as a socket
  CUDA_VISIBLE_DEVICES=$n NCCL_HOSTID=node$n NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 python3 -m torch.distributed.run --nnodes 2 --node_rank "$n" \
    --nproc_per_node 1 --master_addr 127.0.0.1 --master_port 29511 "$@"; }
nodes() { node 1 "$@" > "$KEEP/node1.txt" 2>&1 & node 0 "$@" >> "$KEEP/bench.txt" 2>&1; wait $!; }

# What an ended call left on a GPU would share it with what is measured now.
if [ -n "$(nvidia-smi --query-compute-apps=pid --format=csv,noheader)" ]; then echo "something else is on the GPUs"; nvidia-smi; exit 3; fi

case $1 in
same)
  python3 benchmarks/scaling.py losses --out "$KEEP/losses.json" > "$KEEP/losses.txt" 2>&1 &
  python3 benchmarks/scaling.py kills --gpus 2 --kills 6 --out "$KEEP/kills-2.json" > "$KEEP/kills-2.txt" 2>&1
  wait
  [ "$GPUS" -lt 4 ] || python3 benchmarks/scaling.py kills --gpus 4 --kills 3 --out "$KEEP/kills-4.json" > "$KEEP/kills-4.txt" 2>&1
  ;;
speed)
  for n in $COUNTS; do bench "$n" "$KEEP/speed-$n${2:-}.json" train sample --batch $((128 * n)) $((512 * n)) $((1024 * n)); done ;;
lost)
  for ((g = 0; g < GPUS; g++)); do
    CUDA_VISIBLE_DEVICES=$g bench 1 "$KEEP/apart-$g.json" train --batch 128 512 --steps 200 &
  done; wait
  for n in $COUNTS; do
    [ "$n" = 1 ] && continue
    on "$n" benchmarks/scaling.py reduce --out "$KEEP/reduce-nvlink-$n.json"
    NCCL_P2P_DISABLE=1 on "$n" benchmarks/scaling.py reduce --out "$KEEP/reduce-host-$n.json"
    NCCL_P2P_DISABLE=1 bench "$n" "$KEEP/transport-host-$n.json" train --batch $((128 * n)) $((512 * n))
  done ;;
sockets)
  nodes benchmarks/scaling.py reduce --out "$KEEP/reduce-sockets-2.json"
  nodes scripts/bench.py train --batch 256 1024 --against none --out "$KEEP/transport-sockets-2.json" ;;
judge)
  [ -e "$KEEP/random" ] || python3 benchmarks/scaling.py run "$KEEP/random" >> "$KEEP/bench.txt" 2>&1
  export PYTHONPATH=$PYTHONPATH:$HERE
  for n in ${2:-$COUNTS}; do
    export DDPM_IP_CACHE="$KEEP/cache-$n"  # so that each looks at the reference anew
    OMP_NUM_THREADS=$(($(nproc) / n)) on "$n" benchmarks/inception_speed.py --images 50000 --metrics fid isc kid prc sfid --out "$KEEP/evaluate-$n.json" >> "$KEEP/bench.txt" 2>&1
    cp -r "$KEEP/random/run" "$KEEP/table-$n"
    timed "table on $n" on "$n" scripts/table.py -e "$KEEP/table-$n" --rows ddim fixed_small --steps 10 20 --n_samples 10000 \
      --extractor inception_speed:RandomInception --metrics fid isc > "$KEEP/table-$n.txt" 2>&1
    timed "sample on $n" on "$n" scripts/sample_uncond.py --weights "$KEEP/table-$n" --n_samples 50000 --save_dir "$KEEP/samples-$n" \
      --respace_steps 20 > "$KEEP/sample-$n.txt" 2>&1
    timed "evaluate on $n" on "$n" scripts/evaluate.py "$KEEP/samples-$n" --reference "$KEEP/random/images.npz" \
      --extractor inception_speed:RandomInception --metrics fid isc kid prc > "$KEEP/evaluated-$n.txt" 2>&1
    (cd "$KEEP/samples-$n" && sha256sum ./*.png | sha256sum) >> "$KEEP/samples.txt"
  done; cat "$KEEP/samples.txt" ;;
esac
echo "$1: $SECONDS s"
