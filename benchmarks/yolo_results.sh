#!/usr/bin/env bash
# The numbers about detection in docs/results.md. KDP_BCCD is the data set's folder; an epoch is 26
# steps of 8 images. Tables go to runs/results/yolo. SEEDS, SCALE, TEACHER and epochs may be given.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/yolo
steps=$((26 * ${EPOCHS:-20})) teacher_steps=$((26 * ${TEACHER_EPOCHS:-30}))
tuning=$((26 * ${TUNING_EPOCHS:-10}))
mkdir -p "$out"
common=(boxes=bccd train.warmup_steps=52 train.ema_decay=0.99 train.checkpoint_every=26 "output.dir=$out")
student=("${common[@]}" "model.args.scale=${SCALE:-n}" "train.steps=$steps" "train.validate_every=$steps")
taught=("${student[@]}" "distill.teacher.weights=$out/teacher.pth")
table() { # NAME FILE...
    name=$1; shift
    kdp compare "$@" -c configs/yolo11/yolo11_smoke.yml --set boxes=bccd -o "$out/$name.json" -o "$out/$name.md"
}

# 1. The teacher.
kdp train -c configs/yolo11/yolo11_smoke_teacher.yml "${common[@]}" "model.args.scale=${TEACHER:-s}" \
    "train.steps=$teacher_steps" "train.validate_every=$teacher_steps" output.name=teacher

for seed in ${SEEDS:-0 1 2}; do
    # 2. The student alone, with attention transfer, with it after an alignment, and distilled as
    # Ultralytics does it.
    own=("seed=$seed" "${taught[@]}")
    kdp train -c configs/yolo11/yolo11_smoke.yml "seed=$seed" "${student[@]}" '~distill' "output.name=alone_$seed"
    kdp train -c configs/yolo11/yolo11_smoke.yml "${own[@]}" "output.name=attention_$seed"
    kdp train -c configs/yolo11/yolo11_smoke.yml "${own[@]}" "output.name=aligned_$seed" \
        +distill.losses.attention_transfer.align=true
    kdp train -c configs/yolo11/yolo11_builtin.yml "${own[@]}" "output.name=builtin_$seed"

    # 3. The student alone without 30 % of its channels: at once, fine-tuned, and with attention
    # transfer from what it was.
    for how in plain attention; do
        name=pruned_${how}_$seed
        chain=(-c configs/yolo11/yolo11_prune.yml boxes=bccd "seed=$seed" "model.args.scale=${SCALE:-n}")
        chain+=("teacher=$out/alone_$seed.pth" "output.dir=$out" "output.name=$name")
        chain+=("finetune.steps=$tuning" "finetune.validate_every=$tuning")
        chain+=(finetune.warmup_steps=26 finetune.ema_decay=0.99)
        [[ $how == plain ]] && chain+=('~distill')
        kdp prune "${chain[@]}"
        kdp rebuild "${chain[@]}" --from "$out/${name}_pruned.pth" -o "$out/${name}_before.pth"
        kdp finetune "${chain[@]}"
        kdp rebuild "${chain[@]}"
    done
    files=("$out"/{alone,attention,aligned,builtin}_"$seed".pth)
    files+=("$out"/pruned_plain_"${seed}"_{before,rebuilt}.pth "$out/pruned_attention_${seed}_rebuilt.pth")
    table "seed_$seed" "$out/teacher.pth" "${files[@]}"
    python benchmarks/attention_distance.py -c configs/yolo11/yolo11_smoke.yml --set boxes=bccd \
        "$out/teacher.pth" "${files[@]}" > "$out/distance_$seed.txt"
done
