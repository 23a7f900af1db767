#!/usr/bin/env bash
# Breaks a cluster for hours, and draws what that took: memory, open files, data on disk, latency.
#
#   scripts/soak.sh HOURS [OPTION...]     options of the cluster-tests program: --seed, --nodes, --network, --report
#
# A release build, one cluster, faults of all kinds. The report, one page, is named at the end; exit code 0 only where every
# promise was kept. Ctrl-C once ends it and judges what was seen.
set -euo pipefail
cd "$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"

hours=${1:-}
if ! [[ $hours =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)$ ]] || ! [[ $hours =~ [1-9] ]]; then
    echo "soak.sh: give the hours, such as 8 or 0.5: scripts/soak.sh HOURS [OPTION...]" >&2
    exit 2
fi
shift
cargo build --release --locked --workspace --bins
minutes=$(awk -v hours="$hours" 'BEGIN { printf "%.3f", hours * 60 }')
exec "${CARGO_TARGET_DIR:-target}/release/cluster-tests" --scenario soak --minutes "$minutes" "$@"
