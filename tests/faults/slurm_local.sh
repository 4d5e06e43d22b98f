#!/usr/bin/env bash
# A SLURM of one node on this machine, for tests: without systemd and cgroups, on the loopback interface only.
#
#   tests/faults/slurm_local.sh start [FOLDER]     start it; prints the line that makes sbatch, squeue … find it
#   tests/faults/slurm_local.sh stop [FOLDER]      stop it
#
# Needs root and Debian's packages: apt-get install slurm-wlm munge. FOLDER (default /tmp/slurm_local) holds its settings,
# state and logs. It must belong to one user.
set -euo pipefail
command=${1:-}
folder=${2:-/tmp/slurm_local}
PATH=$PATH:/usr/sbin:/sbin

stop() {
  SLURM_CONF=$folder/slurm.conf timeout 5 scancel --user="$(id -un)" 2>/dev/null && sleep 2 || true
  for name in slurmd slurmctld munged; do
    if [ -f "$folder/$name.pid" ]; then
      kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    fi
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
  local cpus
  cpus=$(nproc)  # two jobs at a time are the least that the tests need
  [ "$cpus" -ge 2 ] || cpus=2
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
  done
  mkdir -p "$folder/state" "$folder/spool"
  chmod 755 "$folder"
  head -c 1024 /dev/urandom >"$folder/munge.key"
  chmod 600 "$folder/munge.key"
  cat >"$folder/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=100000
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=15
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >"$folder/munged.out" 2>&1
  slurmctld -c -f "$folder/slurm.conf"
  slurmd -f "$folder/slurm.conf"
  export SLURM_CONF=$folder/slurm.conf
  for _ in $(seq 100); do
    if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
      echo "export SLURM_CONF=$folder/slurm.conf"
      return
    fi
    sleep 0.2
  done
  echo "the node did not come up, see $folder/*.log" >&2
  stop
  exit 1
}

case $command in
  start | stop) "$command" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
