#!/usr/bin/env bash
# The numbers about face masks in docs/results.md. KDP_FACES holds train/ and val/.
# On two CPU cores this takes about seven hours; tables go to runs/results/face.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/face
mkdir -p "$out"
base=$out/face_mask.pth
photos=(faces=real train.steps=1400)
tuned=(faces=real finetune.steps=1400)
table() { # NAME FILE...
    name=$1; shift
    kdp compare "$@" -c configs/face_mask/face_mask.yml --set faces=real -o "$out/$name.json" -o "$out/$name.md"
}

# 1. The base: 40 epochs.
kdp train -c configs/face_mask/face_mask.yml "${photos[@]}" seed=0 "output.dir=$out"

for seed in 0 1 2; do
    # 2. Cached outputs of the base for 40 epochs of augmented images, computed once for all below.
    teacher=("distill.teacher.weights=$base" "seed=$seed" "output.dir=$out")
    taught=$out/taught_$seed
    kdp cache-targets -c configs/face_mask/face_mask_kd_small.yml "${photos[@]}" "${teacher[@]}" "distill.target_cache=$taught"

    # 3. The students with it and without.
    for size in small medium; do
        student=(-c "configs/face_mask/face_mask_kd_$size.yml" "${photos[@]}" "${teacher[@]}")
        kdp train "${student[@]}" "output.name=${size}_kd_$seed" "distill.target_cache=$taught"
        kdp train "${student[@]}" "output.name=${size}_alone_$seed" '~distill'
    done

    # 4. The base without 30, 50 and 70 % of its channels: at once, and after 40 epochs with it.
    # 5. Three criteria, each free to distribute the MACs that 70 % fewer channels leave.
    for what in 0.3 0.5 0.7 magnitude taylor optin; do
        chain=(-c configs/face_mask_prune.yml "${tuned[@]}" "${teacher[@]}" "teacher=$base")
        chain+=("output.name=pruned_${what}_$seed" "distill.target_cache=$taught")
        if [[ $what == 0.* ]]; then
            chain+=("pruning_ratio=$what")
        else
            chain+=(pruning_ratio=null mac_constraint=0.103 "prune.criterion=$what" "prune.min_units={channels: 6}")
        fi
        kdp prune "${chain[@]}"
        kdp rebuild "${chain[@]}" --from "$out/pruned_${what}_${seed}_pruned.pth" -o "$out/pruned_${what}_${seed}_before.pth"
        kdp finetune "${chain[@]}"
        kdp rebuild "${chain[@]}"
    done
    table "seed_$seed" "$base" "$out"/{medium,small}_{alone,kd}_$seed.pth "$out"/pruned_*_${seed}_{before,rebuilt}.pth
done

# 6. Other programs' formats.
for precision in fp32 fp16 int8; do
    kdp export "$base" --format onnx --precision "$precision"
    kdp export "$out/pruned_0.7_0_rebuilt.pth" --format onnx --precision "$precision"
done
table onnx "$base" "$out"/face_mask{,_fp16,_int8}.onnx "$out"/pruned_0.7_0_rebuilt{.pth,.onnx,_fp16.onnx,_int8.onnx}
