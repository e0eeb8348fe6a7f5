#!/usr/bin/env bash
# deploy.sh KUBECTL [MANIFEST...]: deploys the controller under test, and waits until its pods are Ready.
# CLUSTER is set, so `tests/cluster/cluster image` imports images. Without a manifest nothing is deployed: then the
# controller is one that was started by hand.
set -euo pipefail

kubectl=${1:?usage: deploy.sh KUBECTL [MANIFEST...]}
shift
READY_LIMIT=120s

workloads_of() {
    "$kubectl" get --filename="$1" --no-headers \
        --output=custom-columns=A:.kind,B:.metadata.namespace,C:.metadata.name |
        grep -E '^(Deployment|StatefulSet|DaemonSet) ' || true
}

if [ $# -eq 0 ]; then
    echo 'deploy: no manifest, so the controller must run already'
fi
for manifest in "$@"; do
    "$kubectl" apply --server-side --force-conflicts --filename="$manifest"
    workloads_of "$manifest" | while read -r kind namespace name; do
        "$kubectl" rollout status "$kind/$name" --namespace "$namespace" --timeout="$READY_LIMIT" </dev/null
    done
done
