#!/usr/bin/env bash
# Which width, input size and type of numbers a box should run: pareto.sh DATA RUNS TABLE
#
# Trains the `multitask` preset alike in two widths and three input sizes on TABLE (that of the shipped model), converts
# each to int8 and to float32, and draws accuracy against latency. A killed run resumes.
set -euo pipefail

data=$1 runs=$2 table=$3
declare -A weights=(
  [0.35]=mobilenet_v2_imagenet_0.35_224_no_top.weights.h5
  [1.0]=mobilenet_v2_imagenet_1.0_224_no_top_dequant_bncal.weights.h5
)
mkdir -p "$runs"
for alpha in 0.35 1.0; do
  for size in 96 160 224; do
    run="$runs/$alpha-$size"
    cxr-train fit --table "$table" --out "$run" --labels normal,pneumonia,covid19 --seed 1 \
      --alpha "$alpha" --size "$size" --frozen-epochs 1 --fine-epochs 5 --weights "$data/weights/${weights[$alpha]}"
    for type in int8 float32; do
      file="$runs/alpha-$alpha-$size-$type.tflite"
      # Over budget or not: the accuracy that is plotted is the file's own.
      test -e "$file" || cxr-convert "$run/model.keras" --calibration "$table" --type "$type" --over-budget -o "$file"
    done
  done
done
python -m benchmarks.pareto "$runs"/alpha-*.tflite
