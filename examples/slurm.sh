#!/usr/bin/env bash
#SBATCH --job-name=ddpm-ip
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
# Two nodes of four GPUs; EXP_DIR must be on a file system that both share. Two minutes before its time is up the run
# saves and ends, and the job is queued again and continues it; so it does after a pre-emption that requeues.
#
#   sbatch examples/slurm.sh
#   EXP_DIR=/shared/ip CONFIG=configs/adm_ip_cifar10.yaml sbatch examples/slurm.sh --perturbation.gamma 0.1
set -uo pipefail
EXP_DIR=${EXP_DIR:-$PWD/runs/slurm-$SLURM_JOB_ID}
CONFIG=${CONFIG:-configs/ddpm_ip_cifar10.yaml}
MAIN=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" \
  --rdzv_backend c10d --rdzv_endpoint "$MAIN:29500" --rdzv_id "$SLURM_JOB_ID" \
  scripts/train_ddpm_ip.py -c "$CONFIG" -e "$EXP_DIR" -r latest "$@" &
training=$!

save_and_queue_again() {
  kill -TERM "$training"
  wait "$training"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap save_and_queue_again USR1
wait "$training"
