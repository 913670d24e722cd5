#!/usr/bin/env bash
# The figures of docs/training.md, from real radiographs: training_room.sh DATA RUNS [STEP...]
# DATA holds table.csv, brain_mri/ and weights/; see docs/training.md for what each step shows. A killed step resumes.
set -euo pipefail
data=$1 runs=$2
shift 2
wide="$data/weights/mobilenet_v2_imagenet_1.0_224_no_top_dequant_bncal.weights.h5"
slim="$data/weights/mobilenet_v2_imagenet_0.35_224_no_top.weights.h5"
mkdir -p "$runs"

# table NAME QUERY [OPTION...]: rows of the data's table
table() {
  cxr-train table "$data/table.csv" -o "$runs/$1.csv" --path-column file --origin-column origin \
    --licence-column licence --where "$2" "${@:3}" > "$runs/$1.txt" 2>&1
}

# run NAME TABLE OPTION...: fit, then judge the held-out pictures
run() {
  cxr-train fit --table "$runs/$2.csv" --out "$runs/$1" "${@:3}" 2>> "$runs/$1.log"
  cxr-train evaluate --model "$runs/$1/model.keras" --table "$runs/$2.csv" --out "$runs/$1/evaluation" 2>> "$runs/$1.log"
}

# folds NAME TABLE OPTION...: cross-validate
folds() { cxr-train fit --table "$runs/$2.csv" --out "$runs/$1" "${@:3}" 2>> "$runs/$1.log"; }

multitask() { # 1,200 pictures a class of the COVID-19 Radiography Database, and the masked pool
  radiography="(label == 'covid19' and id <= 'x24806') or (label == 'normal' and id <= 'x24749')"
  radiography="$radiography or (label == 'pneumonia' and id <= 'x25808')"
  table multitask "(set == 'pool' and primary == '1' and lung_mask != '') or (set == 'radiography' and ($radiography))" \
    --mask-column lung_mask --group-column group --external "set == 'external'"
  run multitask multitask --weights "$wide" --fine-epochs "${FINE_EPOCHS:-15}"
}

memory() { # the same at 1,000 and at 8,000 pictures: resources.csv
  table thousand "set == 'pool' and primary == '1' and id < 'x01400'" --mask-column lung_mask --group-column group
  table thousands "(set == 'pool' or set == 'radiography') and primary == '1'" --mask-column lung_mask --group-column group
  for size in thousand thousands; do
    folds "memory-$size" "$size" --weights "$wide" --frozen-epochs 0 --fine-epochs 1
    tail -n 1 "$runs/memory-$size/resources.csv"
  done
}

darkcovidnet() { # 5 folds of the 1,124 pictures: by picture as the paper, then by patient and near-duplicate
  query="source == 'muhammedtalo/COVID-19'"
  table dark-by-picture "$query" --split-by-picture
  table dark-by-group "$query" --group-column group
  for by in picture group; do
    folds "dark-by-$by" "dark-by-$by" --preset two-phase --weights "$wide" --size 160 --batch 32 --augmentation strong \
      --frozen-epochs 2 --fine-layers 0 --fine-rate 2e-4 --fine-epochs 7 --folds 5
  done
}

kermany() { # normal against pneumonia, held-out patients
  table kermany "origin == 'kermany' and primary == '1'" --group-column group
  run cnn-bn kermany --preset cnn-bn
  run transfer kermany --preset vgg16 --backbone mobilenet_v2 --weights "$wide" --fine-layers 20 --fine-rate 1e-4
  run transfer-pooled kermany --preset two-phase --weights "$wide" --task sigmoid --size 192 --batch 16 --frozen-epochs 3 \
    --fine-epochs 12 --fine-layers 0 --balance undersample --per-class 240 --augmentation strong
  run cnn-4conv kermany --preset cnn-4conv
  cxr-train compare "$runs/cnn-4conv" "$runs/cnn-bn" "$runs/transfer" "$runs/transfer-pooled" --out "$runs/kermany"
}

brain() { # tumour against healthy, by near-duplicate group
  cxr-train table "$data/brain_mri" -o "$runs/brain.csv" > "$runs/brain.txt" 2>&1
  folds brain brain --preset resnet50 --backbone mobilenet_v2 --weights "$wide" --size 192 --batch 16 --fine-rate 1e-4 \
    --fine-epochs 12 --frozen-epochs 6 --folds 5
}

origins() { # each origin judged by a model that never saw it
  table origins "primary == '1' and (set == 'pool' or (set == 'radiography' and id.str.match('.*[05]$')))" \
    --group-column group
  folds origins origins --preset two-phase --weights "$slim" --alpha 0.35 --size 160 --batch 32 --augmentation strong \
    --balance origin --frozen-epochs 1 --fine-layers 0 --fine-rate 3e-4 --fine-epochs 3 --folds origin
}

presets() { # every preset: a few epochs, kill -9 in the midst, resume, evaluate, convert, scan
  table small "origin == 'kermany' and set == 'pool' and primary == '1' and id.str.match('.*[05]$')" \
    --mask-column lung_mask --group-column group
  cxr-train table "$data/brain_mri" -o "$runs/brain.csv" > "$runs/brain.txt" 2>&1
  few() { preset "$1" "$2" --weights "$3" --fine-epochs 2 "${@:4}"; }
  few multitask small "$wide" --frozen-epochs 1
  few two-phase small "$wide" --frozen-epochs 2
  few cnn-4conv small none
  few cnn-bn small none --per-class 0
  few resnet50 brain none --frozen-epochs 1
  few vgg16 brain none --frozen-epochs 1 --per-class 0
}

preset() {
  out="$runs/preset-$1"
  fit=(cxr-train fit --preset "$1" --table "$runs/$2.csv" --out "$out" "${@:3}")
  "${fit[@]}" 2>> "$out.log" &
  until [ "$(cat "$out/training_log.csv" 2> /dev/null | wc -l)" -ge 2 ]; do sleep 0.1; done
  kill -9 $!
  wait $! || echo "$1: killed after $(($(wc -l < "$out/training_log.csv") - 1)) epochs"
  "${fit[@]}" 2>> "$out.log"
  cut -d, -f1 "$out/training_log.csv" | paste -sd' '
  cxr-train evaluate --model "$out/model.keras" --table "$runs/$2.csv" --split test --out "$out/evaluation" 2>> "$out.log"
  cxr-convert "$out/model.keras" --calibration "$runs/$2.csv" --over-budget -o "$out.tflite" > "$out.card" 2>> "$out.log"
  cxr-edge scan "$data/brain_mri/no" -o "$out-scan" --model "$out.tflite" 2>> "$out.log" || test $? -eq 3
}

[ $# -gt 0 ] || set -- presets multitask memory darkcovidnet kermany brain origins
for step in "$@"; do
  echo "== $step"
  $step
done
