#!/usr/bin/env bash
# deploy.sh KUBECTL [MANIFEST...]: deploys the controller under test, and waits until its pods are Ready.
# CLUSTER is set, so `tests/cluster/cluster image` imports images. Without a manifest this project's own package is
# deployed: the image of `make image`, and deploy/install.yaml.
#
# CARGO_TARGET_DIR  the image is in its folder `image`
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

kubectl=${1:?usage: deploy.sh KUBECTL [MANIFEST...]}
shift
READY_LIMIT=120s
NAMESPACE=tallygate-system

workloads_of() {
    "$kubectl" get --filename="$1" --no-headers \
        --output=custom-columns=A:.kind,B:.metadata.namespace,C:.metadata.name |
        grep -E '^(Deployment|StatefulSet|DaemonSet) ' || true
}

# Imports the image, and makes the namespace, which the package does not have.
prepare_package() {
    local image
    image=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}/image/tallygate.oci")
    if [ ! -e "$image" ]; then
        echo "deploy: there is no image $image: \`make image\` builds it; or name another controller with --manifest" >&2
        exit 1
    fi
    "$root/tests/cluster/cluster" import "$image"
    "$kubectl" create namespace "$NAMESPACE" --dry-run=client --output=yaml | "$kubectl" apply --server-side --filename=-
    "$kubectl" label --overwrite namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted
}

if [ $# -eq 0 ]; then
    prepare_package
    set -- "$root/deploy/install.yaml"
fi
for manifest in "$@"; do
    "$kubectl" apply --server-side --force-conflicts --filename="$manifest"
    workloads_of "$manifest" | while read -r kind namespace name; do
        "$kubectl" rollout status "$kind/$name" --namespace "$namespace" --timeout="$READY_LIMIT" </dev/null
    done
done
