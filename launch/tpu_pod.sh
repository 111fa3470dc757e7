#!/usr/bin/env bash
# Runs one command on every worker of a Cloud TPU VM slice.
#
#   TPU=my-pod ZONE=us-central2-b launch/tpu_pod.sh setup
#   TPU=my-pod ZONE=us-central2-b launch/tpu_pod.sh train \
#     --config=configs/difffae.py:voxceleb256 --workdir=/mnt/bucket/difffae
#   TPU=my-pod ZONE=us-central2-b launch/tpu_pod.sh stop
#
# TPU, ZONE    name and zone of the slice (required)
# PROJECT      Google Cloud project (gcloud's own by default)
# FOLDER       where the code lies on the workers (faceedit_jax)
# SESSION      name of the tmux session that outlives the connection (train)
set -euo pipefail

: "${TPU:?set TPU to the name of the slice}"
: "${ZONE:?set ZONE to the zone of the slice}"
FOLDER="${FOLDER:-faceedit_jax}"
SESSION="${SESSION:-train}"
ACTION="${1:-}"
if [[ $# -gt 0 ]]; then
  shift
fi

where=("--zone=$ZONE")
if [[ -n "${PROJECT:-}" ]]; then
  where+=("--project=$PROJECT")
fi

on_all() {
  gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --worker=all \
    --command="$1"
}

case "$ACTION" in
  setup)
    cd "$(dirname "$0")/.."
    archive="$(mktemp --suffix=.tar.gz)"
    trap 'rm -f "$archive"' EXIT
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU:faceedit.tar.gz" \
      "${where[@]}" --worker=all
    on_all "mkdir -p $FOLDER && tar -xzf faceedit.tar.gz -C $FOLDER \
      && python3 -m venv $FOLDER/.venv \
      && $FOLDER/.venv/bin/pip install -q -U pip \
      && $FOLDER/.venv/bin/pip install -q -e '$FOLDER[tpu]'"
    ;;
  train)
    if [[ $# -eq 0 ]]; then
      echo "error: train needs --config=... --workdir=..." >&2
      exit 2
    fi
    # Quoted twice: once for the worker's shell, once for tmux.
    printf -v command '%q ' .venv/bin/python -m faceedit_jax.main \
      --distributed "$@"
    printf -v quoted '%q' "cd $FOLDER && $command 2>&1 | tee -a train.log"
    on_all "tmux new-session -d -s $SESSION $quoted"
    echo "started; follow it with: launch/tpu_pod.sh log"
    ;;
  log)
    gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --worker=0 \
      --command="tail -n 40 -f $FOLDER/train.log"
    ;;
  stop)
    # SIGTERM: the program saves and ends; started again it resumes.
    # Only Python itself: tmux and the shells have the command in their own
    # lines, and would take the program down before it has saved.
    on_all "pkill -TERM -f '^[^ ]*python[^ ]* -m faceedit_jax[.]main' || true"
    ;;
  *)
    sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'
    exit 2
    ;;
esac
