#!/usr/bin/env bash
# How well the method does on an origin that it never saw: left_out.sh DATA RUNS ORIGIN [all|undisputed] [SEED]
#
# Trains the `multitask` preset, small (alpha 0.35, 160 pixels, 10 epochs), on the pool of DATA without ORIGIN, with all
# labels or without those that radiologists dispute, and prints the contrasts inside one origin; those of ORIGIN are of
# all its pictures. The COVID-19 Radiography Database is left out: it holds pictures of NIH and of Kermany. A killed run
# resumes.
set -euo pipefail

data=$1 runs=$2 origin=$3 labels=${4:-all} seed=${5:-1}
run="$runs/$origin-$labels-$seed" disputed=""
if [ "$labels" = undisputed ]; then
  disputed="(label == 'pneumonia' and rsna_class not in ['', 'Lung Opacity'])"
  disputed="$disputed or (label == 'normal' and rsna_class not in ['', 'Normal'])"
fi

cxr-train table "$data/table.csv" -o "$run/table.csv" --path-column file --mask-column lung_mask \
  --origin-column origin --group-column group --doubtful "$disputed" \
  --where "primary == '1' and set == 'pool' and origin != '$origin'" \
  --external "primary == '1' and set == 'pool' and origin == '$origin'"
cxr-train fit --table "$run/table.csv" --out "$run/fit" --labels normal,pneumonia,covid19 --seed "$seed" \
  --alpha 0.35 --size 160 --frozen-epochs 2 --fine-epochs 8 \
  --weights "$data/weights/mobilenet_v2_imagenet_0.35_224_no_top.weights.h5"
cxr-train evaluate --model "$run/fit/model.keras" --table "$run/table.csv" --out "$run/evaluation"
echo "$origin left out, $labels labels, seed $seed:"
python "$(dirname "$0")/contrasts.py" "$run/evaluation/predictions.csv" "$data/table.csv"
