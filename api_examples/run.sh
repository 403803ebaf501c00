#!/usr/bin/env bash
# A workflow as it is, from the shell: pip install comfy-cli
# bash api_examples/run.sh 127.0.0.1:8188 [workflows/api/NAME.json]
set -eu
comfy --skip-prompt run --wait --host "${1%:*}" --port "${1##*:}" \
    --workflow "${2:-workflows/api/01_start_here.json}"
