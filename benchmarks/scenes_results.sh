#!/usr/bin/env bash
# The numbers about acoustic scenes in docs/results.md. KDP_ESC10 holds ESC-10 with TAU's columns.
# Tables go to runs/results/scenes. Only the last weights are evaluated, so that the test fold selects nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/scenes
mkdir -p "$out"
real=(scenes=esc10 "output.dir=$out")
trained=("${real[@]}" train.{steps,validate_every}=600 train.{warmup_steps=60,ema_decay=0.99,checkpoint_every=100})
tuned=("${real[@]}" finetune.{ema_decay=0.99,checkpoint_every=100})
table() { # NAME FILE...
    name=$1; shift
    kdp compare "$@" -c configs/scenes/cp_mobile.yml --set scenes=esc10 -o "$out/$name.json" -o "$out/$name.md"
}

# 1. Two audio transformers.
for seed in 0 1; do
    kdp train -c configs/scenes/scenes_teacher.yml "${trained[@]}" train.steps=1200 train.validate_every=1200 "seed=$seed" "output.name=transformer_$seed"
done
table teachers "$out"/transformer_{0,1}.pth

for seed in 0 1 2; do
    # 2. The baseline, the network alone, and distilled from the mean logits of both transformers and of
    # the network that was trained alone.
    own=("${trained[@]}" "seed=$seed")
    kdp train -c configs/scenes/cp_mobile.yml "${own[@]}" "output.name=cp_$seed"
    kdp train -c configs/scenes/rep_mobile.yml "${own[@]}" "output.name=rep_$seed"
    kdp rebuild -c configs/scenes/cp_mobile.yml "${own[@]}" "output.name=cp_$seed"
    kdp rebuild -c configs/scenes/rep_mobile.yml "${own[@]}" "output.name=rep_$seed"
    ensemble="distill.teacher.weights=[$out/transformer_0.pth,$out/transformer_1.pth,$out/rep_${seed}_rebuilt.pth]"
    kdp train -c configs/scenes/rep_mobile_kd.yml "${own[@]}" "output.name=kd_$seed" "$ensemble"
    kdp rebuild -c configs/scenes/rep_mobile_kd.yml "${own[@]}" "output.name=kd_$seed"

    # 3. Three rounds of 0.3 against one of as much, rounding included, with as many steps.
    chain=(-c configs/prune_schedule.yml "${tuned[@]}" "seed=$seed" "teacher=$out/kd_$seed.pth")
    third="{pruning_ratio: 0.3, steps: 150}"
    kdp prune "${chain[@]}" "output.name=rounds_$seed" finetune.validate_every=150 "rounds=[$third, $third, $third]"
    kdp prune "${chain[@]}" "output.name=once_$seed" finetune.validate_every=450 "rounds=[{pruning_ratio: 0.663, steps: 450}]"

    # 4. Before and after every branch and normalisation is folded into one convolution.
    table "seed_$seed" "$out"/{cp,rep,kd}_${seed}{,_rebuilt}.pth \
        "$out"/rounds_${seed}{_round3,}_rebuilt.pth "$out"/once_${seed}{_round1,}_rebuilt.pth
done

# 5. Other precisions.
for seed in 0 1 2; do
    for precision in fp16 int8; do
        kdp export "$out/kd_${seed}_rebuilt.pth" --format onnx --precision "$precision"
    done
done
table precision "$out"/kd_{0,1,2}_rebuilt{.pth,_fp16.onnx,_int8.onnx}
