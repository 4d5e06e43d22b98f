#!/usr/bin/env bash
# Everything in docs/results.md, from nothing. Start it again after an interruption: finished runs are kept.
#
#   scripts/reproduce.sh [--quick] [FOLDER]      FOLDER: where the runs go (default: runs/reproduce)
#
# At the sizes of docs/results.md: one core, about two and a half hours. --quick: every sweep at a size that takes ten
# minutes in all; shows that everything works, its figures mean little. LAZYEXP_DATA names the folder of data sets;
# what is missing there is downloaded (EMNIST: 536 MiB).
#
# One thread, so that the loops are compared and not the threads' waiting for each other; OMP_NUM_THREADS=2 (say)
# takes more, and makes other folders' runs: seconds of different thread counts are not to be mixed in one folder.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=()
if [ "${1:-}" = --quick ]; then
  shift
  quick=(dataset.train_size=1000 epochs=2 eval_every=1000 model.width=32 seed=0,1)
fi
folder=${1:-runs/reproduce}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python=${PYTHON:-python}
failed=0

# sweep NAME [OVERRIDE…]: a named sweep into a folder of its name, with its report.
sweep() {
  local name=$1
  shift
  echo "== $name"
  "$python" -m lazyexp -m "sweep=$name" "$@" || failed=1
}

# The sizes: the settings of conf/sweep/*.yaml, or smaller where they would take one core more than half an hour.
small="model.width=300"
sweep headline runs_dir="$folder/headline" "${quick[@]}"
sweep energy runs_dir="$folder/energy" "${quick[@]}"
sweep coreset runs_dir="$folder/coreset" $small "${quick[@]}"
if [ ${#quick[@]} = 0 ]; then
  sweep dataset_size runs_dir="$folder/dataset_size" $small
  sweep datasets runs_dir="$folder/datasets" $small
  sweep batch_size runs_dir="$folder/batch_size" $small
  sweep rules runs_dir="$folder/rules_emnist" $small epochs=5 eval_every=54500
  sweep rules runs_dir="$folder/rules_mnist" $small epochs=5 eval_every=30000 dataset=mnist
  sweep width runs_dir="$folder/width" dataset=mnist epochs=5
  sweep augmentation runs_dir="$folder/augmentation" $small
  sweep learning_rate runs_dir="$folder/learning_rate" $small epochs=4
else
  # The swept key keeps its sweep's values only where they are small.
  sweep dataset_size runs_dir="$folder/dataset_size" "${quick[@]}" dataset.train_size=500,1000,2000
  sweep datasets runs_dir="$folder/datasets" "${quick[@]}"
  sweep batch_size runs_dir="$folder/batch_size" "${quick[@]}"
  sweep rules runs_dir="$folder/rules_emnist" "${quick[@]}"
  sweep rules runs_dir="$folder/rules_mnist" "${quick[@]}" dataset=mnist
  sweep width runs_dir="$folder/width" "${quick[@]}" model.width=32,64
  sweep augmentation runs_dir="$folder/augmentation" "${quick[@]}"
  sweep learning_rate runs_dir="$folder/learning_rate" "${quick[@]}" dataset.val_size=1000
fi
exit $failed
