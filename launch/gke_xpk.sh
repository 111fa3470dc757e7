#!/usr/bin/env bash
# Submits a training run to a GKE cluster with XPK.
#
#   CLUSTER=my-cluster ZONE=us-central2-b TPU_TYPE=v5litepod-16 \
#   PROJECT=my-project IMAGE=gcr.io/my-project/faceedit launch/gke_xpk.sh \
#     --config=configs/difffae.py:voxceleb256 --workdir=/mnt/bucket/difffae
#
# CLUSTER, ZONE, PROJECT   the cluster (required)
# TPU_TYPE     kind of slice, as XPK names it (required)
# IMAGE        a container image with this package and its `tpu` extra
#              installed; or leave it out to build on BASE_IMAGE
# BASE_IMAGE   image with Python 3.11 or newer (python:3.12-slim)
# SLICES       number of slices (1)
# NAME         of the workload (faceedit-<time>)
# RESTARTS     after preemption; a run resumes from its checkpoint (10)
set -euo pipefail

: "${CLUSTER:?set CLUSTER}" "${ZONE:?set ZONE}" "${PROJECT:?set PROJECT}"
: "${TPU_TYPE:?set TPU_TYPE, for instance v5litepod-16}"
if [[ $# -eq 0 ]]; then
  echo "error: wanted --config=... --workdir=..." >&2
  exit 2
fi
cd "$(dirname "$0")/.."

printf -v command '%q ' python -m faceedit_jax.main --distributed "$@"
if [[ -n "${IMAGE:-}" ]]; then
  image=("--docker-image=$IMAGE")
else
  # XPK adds the current folder to the base image; the install runs on start.
  image=("--base-docker-image=${BASE_IMAGE:-python:3.12-slim}" "--script-dir=.")
  command="pip install -q -e '.[tpu]' && $command"
fi

xpk workload create \
  --cluster="$CLUSTER" \
  --zone="$ZONE" \
  --project="$PROJECT" \
  --tpu-type="$TPU_TYPE" \
  --num-slices="${SLICES:-1}" \
  --workload="${NAME:-faceedit-$(date +%m%d-%H%M%S)}" \
  --max-restarts="${RESTARTS:-10}" \
  "${image[@]}" \
  --command="$command"
