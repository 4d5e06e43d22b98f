#!/usr/bin/env bash
# Make all runs of docs/results/. After an interruption, the same command continues; finished runs are kept.
#
#   scripts/reproduce.sh [PART] [--quick] [FOLDER]
#
# PART    one part only:
#         sweeps          the named sweeps of conf/sweep/ (about four hours)
#         fair_fight      equal trials for six rules, and with shifts for three (three hours)
#         methods_trials  equal trials for every rule (an hour and a half)
#         cifar10         every rule with a ResNet on a subset of CIFAR-10 (four hours); not part of all
#         cifar10_gpu     published protocols with ResNet-18, for a GPU; not part of all
# FOLDER  folder of the runs, runs/reproduce by default: FOLDER/PAGE for docs/results/PAGE.md
# --quick all parts at sizes that take about ten minutes on one core. The figures then mean little.
#
# Times are those of one core. LAZYEXP_DATA is the folder of data sets; missing ones are downloaded (EMNIST: 536 MiB).
# scripts/collect.py writes the tables of docs/results/ from the runs.
#
# All runs use one thread, so that they compare the loops and not the synchronisation of threads. OMP_NUM_THREADS=2
# allows more; use another FOLDER then, because times of different thread counts are not comparable.
set -euo pipefail
cd "$(dirname "$0")/.."
part=all
case "${1:-}" in
  sweeps | fair_fight | methods_trials | cifar10 | cifar10_gpu)
    part=$1
    shift
    ;;
esac
quick=()
if [ "${1:-}" = --quick ]; then
  shift
  quick=(dataset.train_size=1000 epochs=2 eval_every=1000 model.width=32 "seed=0,1")
fi
folder=${1:-runs/reproduce}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python=${PYTHON:-python}
failed=0

# runs SUBFOLDER OVERRIDE...: a sweep with its report in FOLDER/SUBFOLDER.
runs() {
  local output=$folder/$1
  shift
  echo "== $output"
  "$python" -m lazyexp -m runs_dir="$output" "$@" || failed=1
}

# search SUBFOLDER TRIALS RULE OPTION...: the trials of one rule.
search() {
  local output=$folder/$1 trials=$2 rule=$3
  shift 3
  echo "== $output"
  "$python" -m lazyexp.tune.cli rule="$rule" "$@" --trials "$trials" --folder "$output" || failed=1
}

# finals SUBFOLDER SEEDS SEARCH... [OPTION...]: fresh seeds of the chosen settings, in turns, and their report.
finals() {
  local output=$folder/$1 seeds=$2
  shift 2
  echo "== $output"
  "$python" -m lazyexp.tune.cli --finals "$@" --seeds "$seeds" --folder "$output" || failed=1
  "$python" -m lazyexp.report.cli "$output" || failed=1
}

# The named sweeps: their settings in conf/sweep/, or smaller where one core would take more than half an hour.
sweeps() {
  local small=model.width=300 data name
  local online="rule=lazy,confidence,backprop dataset=mnist model.init=lecun_normal dataset.scale=unit"
  online+=" optimizer.lr=0.05 optimizer.schedule=constant"
  if [ ${#quick[@]} = 0 ]; then
    runs headline sweep=headline
    runs energy/online $online model.width=100 epochs=10 eval_every=5000 seed=0,1,2
    runs energy/mnist sweep=energy
    runs energy/emnist sweep=energy dataset=emnist epochs=1,2,3,6
    runs coreset sweep=coreset $small
    runs dataset_size sweep=dataset_size $small
    runs datasets sweep=datasets $small
    runs batch_size sweep=batch_size $small
    runs rules/emnist sweep=rules $small eval_every=109000
    runs rules/emnist_selected sweep=rules $small eval_every=109000 rule=random optimizer.reduction=selected
    runs rules/mnist sweep=rules $small eval_every=60000 dataset=mnist
    runs width sweep=width dataset=mnist epochs=5
    runs augmentation sweep=augmentation $small
    runs learning_rate sweep=learning_rate $small epochs=4
    runs failure sweep=failure $small
    # The second paper's claims, reduced: the full sweeps take hours.
    local few="dataset.train_size=5000 eval_every=2500"
    local net="model.width=100 model.init=lecun_normal dataset.scale=unit optimizer.lr=0.02 optimizer.schedule=constant"
    runs incremental sweep=incremental $few epochs=1
    runs mistake_gating sweep=mistake_gating dataset=mnist $few $net epochs=5 eval_every=1000 targets=[0.85,0.9]
    runs replay sweep=replay dataset.train_size=3000 eval_every=1000 memory.replay_every=1000 memory.capacity=100,300,1000,null rule=backprop,lazy
    runs scaling sweep=scaling dataset=mnist dataset.train_size=1000,2000,4000 dataset.augment=[] model.width=100 epochs=4
    runs batch_limits sweep=batch_limits dataset=mnist,fashion_mnist dataset.train_size=3000 epochs=5 model.width=100
    runs equal_seconds sweep=equal_seconds
    runs equal_seconds sweep=equal_seconds rule=lazy epochs=32,64
    runs shifts/matched sweep=shifts precision=bfloat16 eval_every=54500
    for data in emnist mnist fashion_mnist; do
      runs methods/$data sweep=methods $small seed=0,1,2 dataset=$data precision=bfloat16
    done
  else
    for name in headline coreset datasets augmentation equal_seconds; do
      runs $name sweep=$name "${quick[@]}"
    done
    runs energy/online $online "${quick[@]}"
    runs energy/mnist sweep=energy "${quick[@]}"
    runs shifts/matched sweep=shifts "${quick[@]}"
    runs methods/emnist sweep=methods "${quick[@]}"
    runs failure sweep=failure "${quick[@]}" dataset.label_noise=0,0.4 dataset.imbalance=1,0.1
    runs batch_size sweep=batch_size "${quick[@]}" batch_size=1,16,64
    runs rules/emnist sweep=rules "${quick[@]}"
    runs incremental sweep=incremental "${quick[@]}" epochs=1
    runs mistake_gating sweep=mistake_gating "${quick[@]}" dataset=mnist
    runs replay sweep=replay "${quick[@]}" epochs=1 memory.replay_every=500 memory.capacity=50,null
    runs scaling sweep=scaling "${quick[@]}" dataset.train_size=250,500,1000
    runs batch_limits sweep=batch_limits "${quick[@]}" dataset=mnist,fashion_mnist
    runs rules/mnist sweep=rules "${quick[@]}" dataset=mnist
    # These sweep a key that --quick sets.
    runs dataset_size sweep=dataset_size "${quick[@]}" dataset.train_size=500,1000
    runs width sweep=width "${quick[@]}" model.width=32,64
    runs learning_rate sweep=learning_rate "${quick[@]}" dataset.val_size=1000
  fi
}

# The same number of trials for every rule, then fresh seeds of the chosen settings.
fair_fight() {
  local rules="spaced backprop confidence lazy infobatch random"
  local trials=30 borrowing_trials=57 shift_trials=24 seeds=10
  local datasets="emnist fashion_mnist" common=(energy=false eval_every=1000000 precision=bfloat16)
  local dataset rule searches borrowed other shifts val_size
  if [ ${#quick[@]} != 0 ]; then
    trials=5 borrowing_trials=12 shift_trials=5 seeds=2 datasets=emnist # three of the five trials are given, two are drawn
    common+=(dataset.train_size=1000 model.width=32)
  fi
  for dataset in $datasets; do
    val_size=$([ $dataset = emnist ] && echo 9000 || echo 6000)
    searches=() borrowed=()
    for rule in $rules; do
      searches+=("$folder/fair_fight/$dataset/$rule")
      [ $rule = backprop ] || borrowed+=("$folder/fair_fight/$dataset/$rule")
      search fair_fight/$dataset/$rule $trials $rule rule_label="$(label $rule)" dataset=$dataset "${common[@]}" \
        dataset.val_size=$val_size
    done
    finals fair_fight/$dataset/finals $seeds "${searches[@]}"
    if [ $dataset = emnist ]; then # backprop also tries what the other rules chose, here and in methods_trials
      for other in "$folder"/methods/trials/*/trials.csv; do
        [ ! -f "$other" ] || borrowed+=("$(dirname "$other")")
      done
      search fair_fight/borrowed/backprop $borrowing_trials backprop rule_label=backprop dataset=emnist \
        "${common[@]}" dataset.val_size=9000 --borrow "${borrowed[@]}"
      finals fair_fight/borrowed/finals $seeds "$folder/fair_fight/borrowed/backprop" "$folder/fair_fight/emnist/spaced"
    fi
  done
  shifts=(dataset=emnist dataset.augment=[shift] dataset.val_size=9000 "${common[@]}" --space shifts)
  searches=()
  for rule in spaced backprop infobatch; do
    searches+=("$folder/shifts/trials/$rule")
    search shifts/trials/$rule $shift_trials $rule rule_label="$(label $rule)" "${shifts[@]}"
  done
  finals shifts/trials/finals $((seeds / 2)) "${searches[@]}" --margins 0
}

# Every rule on the same network and schedule, and shorter schedules of backprop.
cifar10() {
  local small=()
  [ ${#quick[@]} = 0 ] || small=(dataset.train_size=1000 dataset.test_size=500 epochs=2 eval_every=1000 model.width=4 "seed=0,1")
  runs cifar10/matched sweep=cifar10 "${small[@]}"
  [ ${#quick[@]} != 0 ] || runs cifar10/matched sweep=cifar10 rule=backprop epochs=4,6,8
}

# The protocols of the methods' authors, with the published network.
cifar10_gpu() {
  local small=() name
  [ ${#quick[@]} = 0 ] || small=(dataset.train_size=1000 dataset.test_size=500 epochs=2 eval_every=1000 "seed=0,1")
  for name in infobatch ies pdd kakurenbo deepcore; do
    runs cifar10_gpu/$name sweep=cifar10_$name "${small[@]}"
  done
}

# The name of a rule in reports: the search of `spaced` includes packing, which makes it `fast_lazy`.
label() {
  [ "$1" = spaced ] && echo fast_lazy || echo "$1"
}

# Equal trials for every rule in a smaller network. Backprop then gets three times as many, the settings that the other
# rules chose among them.
methods_trials() {
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
    searches+=("$folder/methods/trials/$rule")
    search methods/trials/$rule $trials $rule "${common[@]}" --space methods
  done
  search methods/trials/backprop $((3 * trials)) backprop "${common[@]}" --space methods --borrow "${searches[@]:1}"
  finals methods/trials/finals $seeds "${searches[@]}"
}

if [ $part = all ]; then
  sweeps
  methods_trials
  fair_fight
else
  $part
fi
exit $failed
