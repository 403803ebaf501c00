#!/usr/bin/env bash
# A workflow as it is, from the shell: pip install comfy-cli
# bash api_examples/run.sh 127.0.0.1:8188 [workflows/api/NAME.json]
set -eu
[ $# -ge 1 ] || { sed -n 3p "$0" >&2; exit 2; }
comfy --skip-prompt run --wait --host "${1%:*}" --port "${1##*:}" \
    --workflow "${2:-workflows/api/01_start_here.json}"
