#!/usr/bin/env bash
# Trains in several processes of this machine, joined over the loopback.
# For trying out multi-host runs without any host to spare.
#
#   PROCESSES=2 launch/local_processes.sh \
#     --config=configs/difffae.py --workdir=runs/difffae
#
# PROCESSES    how many (2)
# DEVICES      CPU devices of each process (2); not used with PLATFORM=cuda
# PLATFORM     cpu (default), or cuda: then every process gets one GPU
# PORT         of the coordinator (a free one by default)
# PYTHON       the interpreter (python)
set -euo pipefail

PROCESSES="${PROCESSES:-2}"
DEVICES="${DEVICES:-2}"
PLATFORM="${PLATFORM:-cpu}"
PYTHON="${PYTHON:-python}"

if [[ $# -eq 0 ]]; then
  sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'
  exit 2
fi
case "$PLATFORM" in
  cpu | cuda) ;;
  *) echo "error: PLATFORM is $PLATFORM, wanted cpu or cuda" >&2; exit 2 ;;
esac

free_port() {
  "$PYTHON" -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
PORT="${PORT:-$(free_port)}"

cd "$(dirname "$0")/.."
pids=()

interrupted=0
stop_all() {
  for pid in "${pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
}
# A signal goes to every process: each saves its share and ends.
trap 'interrupted=1; stop_all' INT TERM

for ((i = 0; i < PROCESSES; i++)); do
  (
    export COORDINATOR="127.0.0.1:$PORT" NUM_PROCESSES="$PROCESSES"
    export PROCESS_ID="$i" JAX_PLATFORMS="$PLATFORM"
    if [[ "$PLATFORM" == cpu ]]; then
      export JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
      export XLA_FLAGS="--xla_force_host_platform_device_count=$DEVICES ${XLA_FLAGS:-}"
    else
      export CUDA_VISIBLE_DEVICES="$i"
    fi
    exec "$PYTHON" -m faceedit_jax.main --distributed "$@"
  ) &
  pids+=("$!")
done

# If one fails the others would wait for it for ever, so they are stopped.
code=0
left="$PROCESSES"
while ((left > 0)); do
  status=0
  wait -n || status=$?
  if ((interrupted)); then
    interrupted=0 # the signal ended the waiting, not a process
    continue
  fi
  if ((status == 127)); then
    break # none is left
  fi
  left=$((left - 1))
  if ((status != 0)); then
    if ((code == 0)); then
      code="$status"
    fi
    stop_all
  fi
done
exit "$code"
