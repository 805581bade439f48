#!/usr/bin/env bash
# The numbers about CATANet in docs/results.md. KDP_SR holds BSDS400, Set5, Set14 and B100.
# On two CPU cores this takes about two hours; tables go to runs/results.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results
mkdir -p "$out"
teacher=weights/catanet_teacher_x2.pth
chain=configs/catanet/catanet_bsds.yml
set5='evaluation={set5: {kind: paired, hr: "${oc.env:KDP_SR}/Set5/x2/HR", lr: "${oc.env:KDP_SR}/Set5/x2/LR"}}'

# 1. Criteria at equal MACs, before any training. Rebuilt networks equal the masked ones and are faster.
for budget in 0.7 0.5 0.35 0.25; do
    files=()
    for criterion in optin taylor magnitude random; do
        folder=$out/${criterion}_$budget
        kdp prune -c "$chain" "prune.criterion=$criterion" "mac_constraint=$budget" \
            "prune.scores=$out/scores_$criterion.pth" "prune.min_units={tab_heads: 0, lrsa_heads: 0}" \
            "output.dir=$folder" output.name="$criterion"
        kdp rebuild -c "$chain" --from "$folder/${criterion}_pruned.pth" \
            --masks "$folder/${criterion}_pruning_masks.pth" -o "$folder/$criterion.pth"
        files+=("$folder/$criterion.pth")
    done
    kdp compare "$teacher" "${files[@]}" --set "$set5" \
        -o "$out/criteria_$budget.md" -o "$out/criteria_$budget.json"
done

# 2. The chain at both budgets.
for budget in 0.7 0.5; do
    folder=$out/chain_$budget
    options=("mac_constraint=$budget" "output.dir=$folder" output.name=x "output.runs=$folder/runs")
    kdp prune -c "$chain" "${options[@]}" "prune.scores=$out/scores_optin.pth"
    kdp finetune -c "$chain" "${options[@]}"
    kdp rebuild -c "$chain" "${options[@]}"
    kdp compare "$teacher" "$folder"/x_{pruned,finetuned_feature_kd,rebuilt}.pth \
        -c configs/catanet/sr_benchmarks.yml -o "$out/chain_$budget.md" -o "$out/chain_$budget.json"
done

# 3. How much the masks depend on the calibration patches and the seed.
python benchmarks/mask_stability.py --config "$chain" | tee "$out/stability.txt"

# 4. Speed.
python benchmarks/attention.py | tee "$out/attention.txt"
python benchmarks/importance.py --weights "$teacher" | tee "$out/importance.txt"
