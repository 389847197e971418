#!/usr/bin/env bash
# The official CIFAR-10 recipe (configs/adm_ip_cifar10.yaml; EMA 0.999 and 500 steps of warm-up, since minutes are short),
# with gamma 0.15 on one GPU and 0 on the other, and what its samples are worth. Everything lies in $KEEP: the
# Parquet shards in data/, the classifier, the statistics.
#
#   bash benchmarks/adm_gpu.sh train STEPS [KEY VALUE ...]   # both networks; a second call with more STEPS continues
#   bash benchmarks/adm_gpu.sh score SECONDS                 # 2,000 images of each row of samplers.py's list, then 10,000 of the best
#   bash benchmarks/adm_gpu.sh imported                      # the network of samplers_gpu.sh through export, import, sample, table
set -u
KEEP=${KEEP:?the folder of data and results, see above}
HERE=$(dirname "$0")
export PYTHONPATH=${PYTHONPATH:-}:$HERE C56_CLASSIFIER=$KEEP/resnet56-4bfd9763.th
SCORE="--classifier $KEEP/resnet56-4bfd9763.th --statistics $KEEP/c56_train_stats.npz --commit ${COMMIT:-unknown}"
GAMMAS=(0.15 0)
command() { python3 -c "import sys; from ddpm_ip.cli import main; sys.exit(main(sys.argv[1:]))" "$@"; }

case $1 in
train)
  steps=$2; shift 2
  for g in 0 1; do
    ( export CUDA_VISIBLE_DEVICES=$g; begin=$SECONDS
      run=$KEEP/adm_gamma_${GAMMAS[$g]}
      if [ -d $run ]; then from="-r latest"; else from="-c $HERE/../configs/adm_ip_cifar10.yaml --perturbation.gamma ${GAMMAS[$g]}"; fi
      command train $from -e $run --data '{name: parquet, root: '$KEEP/data', image_size: 32}' --train.n_steps $steps \
        --train.ema_decay 0.999 --train.lr_warmup 500 --train.save_freq 2000 --train.sample_freq 0 "$@" > $run.log 2>&1
      echo "gamma ${GAMMAS[$g]}: rc $?, $((SECONDS - begin)) s"; tail -3 $run.log ) &
  done; wait ;;
score)
  end=$2
  for g in 0 1; do
    ( export CUDA_VISIBLE_DEVICES=$g
      run=$KEEP/adm_gamma_${GAMMAS[$g]}
      weights=$(ls -d $run/ckpt/step*/ | tail -1)ema.safetensors
      cp $weights $KEEP/adm_gamma_${GAMMAS[$g]}.safetensors
      name="ADM, gamma ${GAMMAS[$g]}, $(basename $(ls -d $run/ckpt/step*/ | tail -1)) of 128 images, EMA 0.999"
      of="--config $run/config.yaml --weights $KEEP/adm_gamma_${GAMMAS[$g]}.safetensors --data $KEEP/data"
      python3 $HERE/samplers.py learned --out $KEEP/adm_2k_$g.json $of $SCORE --network "$name" --seconds $((end * 6 / 10))
      python3 $HERE/samplers.py winners --of $KEEP/adm_2k_$g.json --out $KEEP/adm_10k_$g.json $of $SCORE --network "$name" \
        --images 10000 --seconds $((end - 10 - SECONDS))
    ) > $KEEP/score_$g.log 2>&1 &
  done; wait; tail -3 $KEEP/score_?.log ;;
imported)
  # the network of samplers_gpu.sh to a diffusers folder, back by `ddpm-ip import`, and both through sample and table
  export CUDA_VISIBLE_DEVICES=0
  config=$KEEP/cifar10_ip_19k.yaml
  rows="--rows dpm_solver@logsnr fixed_small --steps 10 50 --n_samples 2000 --extractor c56:C56 --metrics fid isc --batch_size 1000"
  command export $KEEP/cifar10_ip_19k.safetensors -c $config -o $KEEP/exported
  command import $KEEP/exported -e $KEEP/imported --licence unknown
  for weights in "$KEEP/cifar10_ip_19k.safetensors -c $config" $KEEP/imported; do
    name=$(basename ${weights%% *})
    command sample --weights $weights --n_samples 1000 --save_dir $KEEP/of_$name.npz --batch_size 1000 --sampler dpm_solver --spacing logsnr --steps 10
  done
  python3 -c "import numpy as np, sys; a, b = (np.load(f)['images'].astype(int) for f in sys.argv[1:]); d = abs(a - b); print('images apart, gray levels: mean', d.mean(), 'most', d.max())" \
    $KEEP/of_cifar10_ip_19k.safetensors.npz $KEEP/of_imported.npz
  printf 'data: {name: parquet, root: %s, image_size: 32}\n' $KEEP/data > $KEEP/reference.yaml
  command table -e $KEEP/imported $rows --reference $KEEP/reference.yaml ;;
esac
echo "$SECONDS s"
