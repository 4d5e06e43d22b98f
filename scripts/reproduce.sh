#!/usr/bin/env bash
# Make all runs of docs/results/. After an interruption, the same command continues; finished runs are kept.
#
#   scripts/reproduce.sh [PART] [--quick] [FOLDER]
#
# PART    one part only. In the order of a run without PART:
#         headline        lazy against backprop, batch size 1
#         paper_loop      the same in plain loops, as in the authors' code
#         equal_seconds
#         fair_fight      equal trials, three searches per rule
#         width dataset_size augmentation batch_size learning_rate
#         rules           the same setting for every rule (pages rules and methods)
#         energy failure coreset datasets shifts incremental mistake_gating replay scaling batch_limits
#         cifar10         every rule with a small ResNet on a subset of CIFAR-10, reduced
#         defaults sampler text benchmarks
#         sweeps          all named sweeps of conf/sweep/ but those of CIFAR-10
#         cifar10_gpu     published protocols with ResNet-18, for a GPU; not part of a run without PART
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
root=$PWD
part=all
parts="headline paper_loop equal_seconds fair_fight width dataset_size augmentation batch_size learning_rate rules"
parts+=" energy failure coreset datasets shifts incremental mistake_gating replay scaling"
parts+=" batch_limits cifar10 defaults sampler text benchmarks"
only= # pages of sweeps(); empty: all
if [[ " $parts sweeps cifar10_gpu " == *" ${1:-} "* ]]; then
  part=$1
  shift
fi
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
  [[ -z $only || " $only " == *" ${1%%/*} "* ]] || return 0
  shift
  echo "== $output"
  "$python" -m lazyexp -m runs_dir="$output" "$@" || failed=1
}

# bench NAME SCRIPT ARGUMENT...: a script that writes the file FOLDER/NAME, unless there is one.
bench() {
  local output=$folder/$1
  shift
  echo "== $output"
  mkdir -p "$folder"
  [ -f "$output" ] || "$python" "$@" "$output" || failed=1
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
  local small=model.width=300 data name epochs
  local online="rule=lazy,confidence,backprop dataset=mnist model.init=lecun_normal dataset.scale=unit"
  online+=" optimizer.lr=0.05 optimizer.schedule=constant"
  if [ ${#quick[@]} = 0 ]; then
    runs headline sweep=headline
    runs energy/online $online model.width=100 epochs=10 eval_every=5000 seed=0,1,2
    runs energy/mnist sweep=energy
    runs energy/emnist sweep=energy dataset=emnist epochs=1,2,3,6
    runs coreset sweep=coreset $small
    local score="model.width=300 batch_size=64 optimizer.lr=0.3 seed=0,1,2"
    for data in emnist mnist; do
      for epochs in 2 4 10; do
        runs coreset_scores/$data $score dataset=$data epochs=$epochs rule=lazy,backprop
      done
      runs coreset_scores/$data $score dataset=$data epochs=10 rule=backprop dataset.subset=matched dataset.subset_score=learned,forgetting,el2n
    done
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
    # The second paper's claims, some of them reduced: the full sweeps take hours.
    local net="model.width=100 model.init=lecun_normal dataset.scale=unit optimizer.lr=0.02 optimizer.schedule=constant"
    runs incremental/phases sweep=incremental epochs=1
    runs incremental/scratch sweep=mistake_gating dataset=mnist $net epochs=5
    local few="epochs=1 dataset.train_size=5000 eval_every=2500 stream.phases=5 stream.present=all"
    runs incremental/emnist sweep=incremental $few dataset=emnist
    runs incremental/blur sweep=incremental $few dataset.blur=1
    runs mistake_gating sweep=mistake_gating
    runs replay sweep=replay dataset.train_size=20000 eval_every=4000 memory.replay_every=4000 memory.capacity=100,300,1000,3000,null rule=backprop,lazy
    runs scaling sweep=scaling dataset.train_size=1000,3000,10000,30000,100000 dataset.augment=[] model.width=100 epochs=4
    runs batch_limits sweep=batch_limits dataset=mnist,fashion_mnist dataset.train_size=10000
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
    runs incremental/phases sweep=incremental "${quick[@]}" epochs=1
    runs incremental/scratch sweep=mistake_gating "${quick[@]}" dataset=mnist
    runs incremental/emnist sweep=incremental "${quick[@]}" epochs=1 dataset=emnist stream.phases=5
    runs incremental/blur sweep=incremental "${quick[@]}" epochs=1 dataset.blur=1 stream.phases=5
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

# The same number of trials for every rule in each of three searches, then fresh seeds of what each search chose.
common=(dataset=emnist dataset.val_size=9000 energy=false eval_every=1000000)
fair_fight() {
  local trials=18 number rule searches=() small=(dataset.train_size=50000 model.width=300) given
  [ ${#quick[@]} = 0 ] || trials=5 small=(dataset.train_size=1000 model.width=32) # three of the five trials are given
  for number in 1 2 3; do
    for rule in backprop spaced lazy; do
      given=()
      [ $rule != spaced ] || given=(rule_label=fast_lazy packing.block_size=2048 packing.precision=float32 packing.components=64)
      searches+=("$folder/fair_fight/emnist/$rule-$number")
      search fair_fight/emnist/$rule-$number $trials $rule "${given[@]}" "${common[@]}" "${small[@]}" \
        seed=$number --seed $number
    done
  done
  finals fair_fight/emnist/finals 5 "${searches[@]}" --margins 0.3
}

rules() { only="rules methods" sweeps; }
coreset() { only="coreset coreset_scores" sweeps; }

# Validation accuracy against the learning rate and the epochs.
defaults() {
  local entry
  if [ ${#quick[@]} != 0 ]; then
    runs defaults/mnist rule=backprop,lazy dataset=mnist "${quick[@]}" dataset.val_size=1000
    return
  fi
  for entry in digits:200 mnist:6000 fashion_mnist:6000; do
    runs defaults/${entry%:*} rule=backprop,lazy dataset=${entry%:*} dataset.val_size=${entry#*:} \
      optimizer.lr=0.003,0.01,0.03 epochs=4,8,16
  done
  runs defaults/emnist rule=backprop,lazy dataset=emnist dataset.val_size=10900 optimizer.lr=0.003,0.01,0.03 epochs=8
  runs defaults/emnist rule=backprop,lazy dataset=emnist dataset.val_size=10900 epochs=4,16
}

paper_loop() { bench paper_loop.csv scripts/bench/paper_loop.py --repeats 5 --out; }

sampler() {
  if [ ${#quick[@]} != 0 ]; then
    bench sampler.csv scripts/bench/sampler.py --epochs 1 --seeds 1 --out
  else
    bench sampler.csv scripts/bench/sampler.py --out
  fi
}

text() {
  local time=(20 3) output
  [ ${#quick[@]} = 0 ] || time=(1 1)
  mkdir -p "$folder/text"
  output=$(cd "$folder/text" && pwd)
  echo "== $output"
  [ -f "$output/text.csv" ] || (cd "$output" && PYTHONPATH="$root/examples/text:$root" "$python" "$root/examples/text/run.py" "${time[@]}") || failed=1
}

benchmarks() {
  if [ ${#quick[@]} != 0 ]; then
    bench bench.csv scripts/bench.py --batches 64 --widths 100 --repeats 1 --samples 1024 --epochs 0 --csv
  else
    bench bench.csv scripts/bench.py --csv
    bench bench_engines.csv scripts/bench.py --batches 1 64 --widths 1000 --repeats 2 --samples 8192 --epochs 0 --csv
  fi
}

# Every rule on the same network and schedule, and shorter schedules of backprop. The full sweep takes many hours.
cifar10() {
  local epochs=8 less=4,6 small=(dataset.train_size=6000 dataset.test_size=3000 eval_every=24000)
  small+=(model.width=8 batch_size=64 optimizer.lr=0.1)
  if [ ${#quick[@]} != 0 ]; then
    epochs=2 less=1 small=(dataset.train_size=1000 dataset.test_size=500 eval_every=1000 model.width=4 "seed=0,1")
  fi
  runs cifar10/matched sweep=cifar10 "${small[@]}" epochs=$epochs
  runs cifar10/matched sweep=cifar10 "${small[@]}" rule=backprop epochs=$less
}

# The protocols of the methods' authors, with the published network.
cifar10_gpu() {
  local small=() name
  [ ${#quick[@]} = 0 ] || small=(dataset.train_size=1000 dataset.test_size=500 epochs=2 eval_every=1000 "seed=0,1")
  for name in infobatch ies pdd kakurenbo deepcore; do
    runs cifar10_gpu/$name sweep=cifar10_$name "${small[@]}"
  done
}

# make PART: the function of this name, or the named sweeps of this page.
make() {
  if declare -F "$1" >/dev/null; then "$1"; else only=$1 sweeps; fi
}

if [ $part = all ]; then
  for part in $parts; do make $part; done
else
  make $part
fi
exit $failed
