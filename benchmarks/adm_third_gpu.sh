set -u
HERE=$(dirname "$0")
python3 -c "import lzma, shutil; shutil.copyfileobj(lzma.open('$KEEP/cifar10_ip_19k.safetensors.xz'), open('$KEEP/cifar10_ip_19k.safetensors', 'wb'))"
bash $HERE/adm_gpu.sh score 190 > $OUT/score.txt 2>&1; cp $KEEP/adm_*.json $KEEP/score_*.log $OUT/
bash $HERE/adm_gpu.sh imported > $OUT/imported.txt 2>&1
timeout 60 python3 -m pytest tests/gpu -m gpu -k "two_gpus and more1" --tb=short -p no:cacheprovider > $OUT/two.txt 2>&1
tar czf $OUT/table.tgz -C $KEEP imported/table imported/meta.json imported/config.yaml exported/README.md 2>/dev/null
tail -n 5 $OUT/*.txt
