#!/usr/bin/env bash
# The numbers about face masks in docs/results.md. KDP_FACES holds train/ and val/.
# On two CPU cores this takes about five hours; tables go to runs/results/face.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/face
mkdir -p "$out"
seeds=(0 1 2)
photos=(faces=real train.steps=1400)
tuned=(faces=real finetune.steps=350)
table() { name=$1; shift; kdp compare "$@" -c configs/face_mask.yml --set faces=real --json "$out/$name.json" --md "$out/$name.md"; }

# 1. The base: 40 epochs.
kdp train -c configs/face_mask.yml "${photos[@]}" seed=0 "output.dir=$out"
base=$out/face_mask.pth

# 2. The students with what the base says of the same pictures, and without.
for size in small medium; do
    for seed in "${seeds[@]}"; do
        student=(-c "configs/face_mask_kd_$size.yml" "${photos[@]}" "seed=$seed" "output.dir=$out")
        kdp train "${student[@]}" "output.name=${size}_kd_$seed" "distill.teacher.weights=$base"
        kdp train "${student[@]}" "output.name=${size}_alone_$seed" '~distill'
    done
done

# 3. The base without 30, 50 and 70 % of its channels: at once, and after 10 epochs with KD.
chain() { # NAME, then what differs
    name=$1; shift
    settings=(-c configs/face_mask_prune.yml "${tuned[@]}" "teacher=$base" "output.dir=$out" "output.name=$name" "$@")
    kdp prune "${settings[@]}"
    kdp rebuild "${settings[@]}" --from "$out/${name}_pruned.pth" --to "$out/${name}_before.pth"
    kdp finetune "${settings[@]}"
    kdp rebuild "${settings[@]}"
}
for ratio in 0.3 0.5 0.7; do
    for seed in "${seeds[@]}"; do
        chain "pruned_${ratio}_$seed" "pruning_ratio=$ratio" "seed=$seed"
    done
done

# 4. Three criteria, each free to distribute the MACs that 70 % less channels leave.
for criterion in magnitude taylor optin; do
    for seed in "${seeds[@]}"; do
        chain "${criterion}_$seed" pruning_ratio=null mac_constraint=0.103 "prune.criterion=$criterion" "seed=$seed"
    done
done

# 5. The tables, and other programs' formats.
table base "$base" "$out"/{medium,small}_{kd,alone}_0.pth "$out"/pruned_{0.3,0.5,0.7}_0_rebuilt.pth
for precision in fp32 fp16 int8; do
    kdp export "$base" --to onnx --precision "$precision"
    kdp export "$out/pruned_0.7_0_rebuilt.pth" --to onnx --precision "$precision"
done
table onnx "$base" "$out"/face_mask{,_fp16,_int8}.onnx "$out"/pruned_0.7_0_rebuilt{.pth,.onnx,_fp16.onnx,_int8.onnx}
