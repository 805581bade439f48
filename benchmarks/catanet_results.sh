#!/usr/bin/env bash
# Everything in docs/results.md about CATANet: needs KDP_SR (BSDS400, Set5, Set14, B100) and hours.
# Tables go to runs/results/*.md and *.json.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results
mkdir -p "$out"
teacher=weights/catanet_teacher_x2.pth
chain=configs/catanet_bsds.yml

prune() { # criterion budget name [options...]
    kdp prune -c "$chain" "prune.criterion=$1" "mac_constraint=$2" "output.dir=$3" "output.name=x" "${@:4}"
}

# 1. Criteria at equal MACs, before any training. Networks are rebuilt: equal to masked, faster.
for criterion in optin magnitude taylor random; do
    for budget in 0.7 0.5; do
        folder=$out/$criterion
        prune "$criterion" "$budget" "$folder"
        kdp rebuild -c "$chain" --from "$folder/x_pruned.pth" --masks "$folder/x_pruning_masks.pth" \
            --to "$out/${criterion}_$budget.pth"
    done
done
for budget in 0.7 0.5; do
    kdp compare "$teacher" "$out"/{optin,magnitude,taylor,random}_$budget.pth \
        -c configs/sr_benchmarks.yml --md "$out/criteria_$budget.md" --json "$out/criteria_$budget.json"
done

# 2. The chain at both budgets.
for budget in 0.7 0.5; do
    name="output.name=catanet_$budget"
    kdp prune -c "$chain" "mac_constraint=$budget" "$name"
    kdp finetune -c "$chain" "$name"
    kdp rebuild -c "$chain" "$name"
    w=weights/catanet_$budget
    kdp compare "$teacher" "${w}_pruned.pth" "${w}_finetuned_feature_kd.pth" "${w}_rebuilt.pth" \
        -c configs/sr_benchmarks.yml --md "$out/chain_$budget.md" --json "$out/chain_$budget.json"
done

# 3. How much the masks depend on the calibration patches and the seed.
python benchmarks/mask_stability.py --config "$chain" | tee "$out/stability.txt"

# 4. Speed.
python benchmarks/attention.py
python benchmarks/importance.py --weights "$teacher"
