#!/usr/bin/env bash
# The numbers about recovery without training in docs/results.md. KDP_FACES holds train/ and val/.
# Tables go to runs/results/recovery. The seed chooses the calibration samples.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/results/recovery
base=weights/face_mask.pth
mkdir -p "$out"

networks=()
for ratio in 0.3 0.5 0.7; do
    for seed in 0 1 2; do
        chain=(-c configs/face_mask_prune.yml faces=real "teacher=$base" "output.dir=$out")
        chain+=("pruning_ratio=$ratio" "seed=$seed" "output.name=face_${ratio}_$seed")
        kdp prune "${chain[@]}" recover.samples=512
        kdp rebuild "${chain[@]}" recover.samples=512
        networks+=("$out/face_${ratio}_${seed}_rebuilt.pth")
    done
    # As cut: magnitude does not depend on the seed.
    chain=(-c configs/face_mask_prune.yml faces=real "teacher=$base" "output.dir=$out")
    chain+=("pruning_ratio=$ratio" "output.name=face_${ratio}_cut")
    kdp prune "${chain[@]}"
    kdp rebuild "${chain[@]}"
    networks+=("$out/face_${ratio}_cut_rebuilt.pth")
done
kdp evaluate "$base" "${networks[@]}" -c configs/face_mask/face_mask.yml --set faces=real \
    -o "$out/faces.json" -o "$out/faces.md"
