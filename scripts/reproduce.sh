#!/usr/bin/env bash
# Everything in docs/results.md, from nothing. Start it again after an interruption: finished runs are kept.
#
#   scripts/reproduce.sh [--quick] [FOLDER]      FOLDER: where the runs go (default: runs/reproduce)
#   scripts/reproduce.sh fair [--quick] [FOLDER] only the comparison under equal trials (three hours, quick: minutes)
#   scripts/reproduce.sh arena_trials ...        only equal trials for every rule (an hour and a half, quick: a minute)
#
# At the sizes of docs/results.md: one core, about ten hours. --quick: every sweep at a size that takes some seven
# minutes of one core in all; shows that everything works, its figures mean little. LAZYEXP_DATA names the folder of data sets;
# what is missing there is downloaded (EMNIST: 536 MiB).
#
# One thread, so that the loops are compared and not the threads' waiting for each other; OMP_NUM_THREADS=2 (say)
# takes more, and makes other folders' runs: seconds of different thread counts are not to be mixed in one folder.
set -euo pipefail
cd "$(dirname "$0")/.."
only=""
if [ "${1:-}" = fair ] || [ "${1:-}" = arena_trials ]; then
  only=$1
  shift
fi
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

# search FOLDER TRIALS RULE OPTION...: one rule's trials.
search() {
  local where=$1 trials=$2 rule=$3
  shift 3
  echo "== $where"
  "$python" -m lazyexp.tune.cli rule="$rule" "$@" --trials $trials --folder "$where" || failed=1
}

# finals FOLDER SEEDS SEARCH... [OPTION...]: fresh seeds of the chosen points, the rules taking turns, and the report.
finals() {
  local where=$1 seeds=$2
  shift 2
  "$python" -m lazyexp.tune.cli --finals "$@" --seeds $seeds --folder "$where" || failed=1
  "$python" -m lazyexp.report.cli "$where" || failed=1
}

# fair: the same number of trials for every rule, then fresh seeds; the same with shifts for three of them.
fair() {
  local rules="spaced backprop confidence lazy infobatch random" trials=30 seeds=10 data="emnist fashion_mnist" few=24
  local common=(energy=false eval_every=1000000 precision=bfloat16) dataset rule searches rivals arena shifts label
  if [ ${#quick[@]} != 0 ]; then
    trials=5 seeds=2 data=emnist few=5 # the first three are given, two are drawn
    common+=(dataset.train_size=1000 model.width=32)
  fi
  for dataset in $data; do
    searches=() rivals=()
    for rule in $rules; do
      searches+=("$folder/fair/$dataset-$rule")
      [ $rule = backprop ] || rivals+=("$folder/fair/$dataset-$rule")
      label=$([ $rule = spaced ] && echo fast_lazy || echo $rule) # its ranges are those of a packed one
      search "$folder/fair/$dataset-$rule" $trials $rule rule_label=$label dataset=$dataset "${common[@]}" \
        dataset.val_size=$([ $dataset = emnist ] && echo 9000 || echo 6000)
    done
    if [ $dataset = emnist ]; then # here the control tries what all others chose, too; those of arena_trials as well
      for arena in "$folder"/arena_trials/emnist-*; do
        [ ! -f "$arena/trials.csv" ] || rivals+=("$arena")
      done
      search "$folder/fair/emnist-backprop" $((trials * 12 / 5)) backprop rule_label=backprop dataset=emnist \
        "${common[@]}" dataset.val_size=9000 --borrow "${rivals[@]}"
    fi
    finals "$folder/fair/finals-$dataset" $seeds "${searches[@]}"
  done
  shifts=(dataset=emnist dataset.augment=shift dataset.val_size=9000 "${common[@]}" --space shifts)
  searches=()
  for rule in spaced backprop infobatch; do
    searches+=("$folder/shift_fight/emnist-$rule")
    label=$([ $rule = spaced ] && echo fast_lazy || echo $rule)
    search "$folder/shift_fight/emnist-$rule" $few $rule rule_label=$label "${shifts[@]}"
  done
  finals "$folder/shift_fight/finals-emnist" $((seeds / 2)) "${searches[@]}" --slack 0 0.001
}

# arena_trials: as `fair`, for every rule there is, in a smaller network. The control gets three times as many trials,
# what all others chose among them.
arena_trials() {
  local rules="backprop lazy confidence spaced mistake_gated random smrd srd progressive top_loss selective_backprop"
  rules+=" composer_selective_backprop infobatch kakurenbo early_stopping evolved_sampling order_dp"
  local common=(dataset=emnist dataset.val_size=9000 energy=false eval_every=1000000 precision=bfloat16)
  local trials=24 seeds=5 searches=() rule
  common+=(model.width=300)
  if [ ${#quick[@]} != 0 ]; then
    trials=4 seeds=2 rules="backprop spaced order_dp"
    common+=(dataset.train_size=1000)
  fi
  for rule in $rules; do
    searches+=("$folder/arena_trials/emnist-$rule")
    search "$folder/arena_trials/emnist-$rule" $trials $rule "${common[@]}" --space arena
  done
  search "${searches[0]}" $((3 * trials)) backprop "${common[@]}" --space arena --borrow "${searches[@]:1}"
  finals "$folder/arena_trials/finals-emnist" $seeds "${searches[@]}"
}

if [ -n "$only" ]; then
  $only
  exit $failed
fi

# The sizes: the settings of conf/sweep/*.yaml, or smaller where they would take one core more than half an hour.
if [ ${#quick[@]} = 0 ]; then
  small="model.width=300"
  sweep headline runs_dir="$folder/headline"
  sweep energy runs_dir="$folder/energy_grid/mnist"
  sweep energy runs_dir="$folder/energy_grid/emnist" dataset=emnist epochs=1,2,3,6
  sweep coreset runs_dir="$folder/coreset" $small
  sweep dataset_size runs_dir="$folder/dataset_size" $small
  sweep datasets runs_dir="$folder/datasets" $small
  sweep batch_size runs_dir="$folder/batch_size" $small
  sweep rules runs_dir="$folder/rules_emnist" $small eval_every=109000
  sweep rules runs_dir="$folder/rules_emnist" $small eval_every=109000 rule=random optimizer.reduction=selected
  sweep rules runs_dir="$folder/rules_mnist" $small eval_every=60000 dataset=mnist
  sweep width runs_dir="$folder/width" dataset=mnist epochs=5
  sweep augmentation runs_dir="$folder/augmentation" $small
  sweep learning_rate runs_dir="$folder/learning_rate" $small epochs=4
  sweep failure runs_dir="$folder/failure" $small
  sweep equal_seconds runs_dir="$folder/equal_seconds"
  sweep equal_seconds runs_dir="$folder/equal_seconds" rule=lazy epochs=32,64
  sweep shifts runs_dir="$folder/shifts" precision=bfloat16 eval_every=54500
  for data in emnist mnist fashion_mnist; do
    sweep arena runs_dir="$folder/arena_$data" $small seed=0,1,2 dataset=$data precision=bfloat16
  done
else
  for name in headline energy coreset datasets augmentation equal_seconds shifts; do
    sweep $name runs_dir="$folder/$name" "${quick[@]}"
  done
  sweep arena runs_dir="$folder/arena_emnist" "${quick[@]}"
  sweep failure runs_dir="$folder/failure" "${quick[@]}" dataset.label_noise=0,0.4 dataset.imbalance=1,0.1
  sweep batch_size runs_dir="$folder/batch_size" "${quick[@]}" batch_size=1,16,64
  sweep rules runs_dir="$folder/rules_emnist" "${quick[@]}"
  sweep rules runs_dir="$folder/rules_mnist" "${quick[@]}" dataset=mnist
  # The swept key keeps its sweep's values only where they are small.
  sweep dataset_size runs_dir="$folder/dataset_size" "${quick[@]}" dataset.train_size=500,1000
  sweep width runs_dir="$folder/width" "${quick[@]}" model.width=32,64
  sweep learning_rate runs_dir="$folder/learning_rate" "${quick[@]}" dataset.val_size=1000
fi

arena_trials
fair
exit $failed
