#!/usr/bin/env bash
# The numbers about students in docs/results.md. KDP_SR holds BSDS400, Set5, Set14 and B100.
# On two CPU cores this takes about four hours; tables go to runs/results.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/student
mkdir -p "$out"
teacher=weights/catanet_teacher_x2.pth
xs=configs/catanet/student_bsds.yml

# 1. From scratch, with the teacher's output, with FAKD: 600 steps, three seeds.
files=()
for seed in 0 1 2; do
    kdp train -c "$xs" seed=$seed "output.dir=$out" output.name=xs_scratch_$seed '~distill'
    kdp train -c "$xs" seed=$seed "output.dir=$out" output.name=xs_output_$seed '~distill.losses.fakd'
    kdp train -c "$xs" seed=$seed "output.dir=$out" output.name=xs_fakd_$seed
    files+=("$out"/xs_{scratch,output,fakd}_$seed.pth)
done
kdp compare "${files[@]}" -c configs/catanet/sr_benchmarks.yml -o "$out/xs.json" -o "$out/xs.md"

# 2. Three roads to 0.36 of CATANet-L's MACs: prune, then fine-tune as long as the students train ...
kdp prune -c configs/config_catanet.yml mac_constraint=0.36 "output.dir=$out" output.name=optin
road=(-c configs/catanet/catanet_bsds.yml mac_constraint=0.36 finetune.steps=600 "output.dir=$out" output.name=optin)
kdp finetune "${road[@]}"
kdp rebuild "${road[@]}"
# ... or prune while FAKD trains ...
kdp train -c configs/catanet/catanet_dynamic.yml "output.dir=$out"
kdp rebuild -c configs/catanet/catanet_dynamic.yml "output.dir=$out"
# ... beside the student, which is that small from the start.
kdp compare "$teacher" "$out/optin_rebuilt.pth" "$out/catanet_dynamic_rebuilt.pth" \
    "$out"/xs_{scratch,output,fakd}_0.pth -c configs/catanet/sr_benchmarks.yml \
    -o "$out/roads.json" -o "$out/roads.md" --plot docs/roads.png --overwrite

# 3. What distilling costs.
python benchmarks/distilling.py --student "$out/xs_fakd_0.pth" | tee "$out/cost.txt"
