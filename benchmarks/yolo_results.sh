#!/usr/bin/env bash
# The numbers about detection in docs/results.md. KDP_BCCD is the data set's folder; SCALE and EPOCHS
# of 26 steps may be given. Tables go to runs/results/yolo.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/yolo
steps=$((26 * ${EPOCHS:-30}))
student=${SCALE:-n} teacher=${TEACHER:-s}
mkdir -p "$out"
common=(boxes=bccd "train.steps=$steps" "train.validate_every=$steps" train.checkpoint_every=26 "output.dir=$out")
table() { # NAME FILE...
    name=$1; shift
    kdp compare "$@" -c configs/yolo11_smoke.yml --set boxes=bccd --json "$out/$name.json" --md "$out/$name.md"
}

# 1. The teacher.
kdp train -c configs/yolo11_smoke_teacher.yml "${common[@]}" "model.args.scale=$teacher" output.name=teacher

for seed in 0 1 2; do
    # 2. The student alone, with attention transfer, with it after an alignment, and distilled as
    # Ultralytics does it.
    own=("${common[@]}" "seed=$seed" "model.args.scale=$student")
    taught=("${own[@]}" "distill.teacher.weights=$out/teacher.pth")
    kdp train -c configs/yolo11_smoke.yml "${own[@]}" '~distill' "output.name=alone_$seed"
    kdp train -c configs/yolo11_smoke.yml "${taught[@]}" "output.name=attention_$seed"
    kdp train -c configs/yolo11_smoke.yml "${taught[@]}" "output.name=aligned_$seed" \
        +distill.losses.attention_transfer.align=true
    kdp train -c configs/yolo11_builtin.yml "${taught[@]}" "output.name=builtin_$seed"

    # 3. The student alone without 30 % of its channels: at once, fine-tuned, and with attention
    # transfer from what it was.
    for how in plain attention; do
        chain=(-c configs/yolo11_prune.yml boxes=bccd "seed=$seed" "model.args.scale=$student")
        chain+=("teacher=$out/alone_$seed.pth" "output.dir=$out" "output.name=pruned_${how}_$seed")
        chain+=("finetune.steps=$steps" "finetune.validate_every=$steps")
        [[ $how == plain ]] && chain+=('~distill')
        kdp prune "${chain[@]}"
        kdp rebuild "${chain[@]}" --from "$out/pruned_${how}_${seed}_pruned.pth" --to "$out/pruned_${how}_${seed}_before.pth"
        kdp finetune "${chain[@]}"
        kdp rebuild "${chain[@]}"
    done
    table "seed_$seed" "$out/teacher.pth" "$out"/{alone,attention,aligned,builtin}_$seed.pth \
        "$out"/pruned_plain_${seed}_{before,rebuilt}.pth "$out/pruned_attention_${seed}_rebuilt.pth"
done
