#!/usr/bin/env bash
# real-api.sh: the test `kube::real_api` of the library (watches, statuses, lease and events) against a real API server,
# on a cluster of its own, which ends with the script. Part of `make cluster-test`.
#
# --keep  leaves the cluster running: CLUSTER=real-api tests/cluster/kubectl get events
# CLUSTER           suffix of the cluster's name
# CARGO_TARGET_DIR  programs and state are in its folder `cluster`
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# Debian installs nft and runc in sbin, which is not on every user's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# shellcheck source=tests/cluster/go.sh
source "$here/go.sh"

export CLUSTER=${CLUSTER:-real-api}
cluster=$here/cluster
kubectl=$here/kubectl

# The version of the conformance suite and of the chart's tests.
GATEWAY_API=v1.6.3
# Limits in seconds.
CRDS_LIMIT=60
TEST_LIMIT=300

keep=
[ "${1-}" != --keep ] || keep=1

end() {
    [ -n "$keep" ] || "$cluster" down >&2
}

# The folder of the Gateway API's Go module, which has the CRDs as files.
gateway_api() {
    use_go
    (cd / && go mod download -json "sigs.k8s.io/gateway-api@$GATEWAY_API") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

install_crds() {
    local folder crds
    folder=$(gateway_api)
    crds=("$folder"/config/crd/experimental/gateway.*.yaml)
    timeout "$CRDS_LIMIT" "$kubectl" apply --server-side "${crds[@]/#/--filename=}" >/dev/null
    timeout "$CRDS_LIMIT" "$kubectl" wait --for=condition=Established --all crd --timeout="${CRDS_LIMIT}s" >/dev/null
}

# The test binary of the library: built outside of the cluster's network, which reaches no registry.
test_binary() {
    (cd "$root" && "${CARGO:-cargo}" test --locked --lib --no-run --message-format json) |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

run_test() {
    local config name
    config=$("$cluster" enter printenv KUBECONFIG)
    name=$(basename "$(dirname "$(dirname "$config")")")
    KUBECONFIG=$config timeout "$TEST_LIMIT" nsenter --net="/run/netns/$name" "$1" \
        --ignored --exact kube::real_api::watches_status_lease_and_events_work_with_a_real_api_server
}

program=$(test_binary)
[ -x "$program" ] || {
    echo "real-api: cargo has built no test binary" >&2
    exit 1
}
trap end EXIT
"$cluster" up
install_crds
shown=$(run_test "$program" 2>&1) || {
    printf '%s\n' "$shown" >&2
    exit 1
}
printf '%s\n' "$shown"
case "$shown" in
    *"test result: ok. 1 passed"*) ;;
    *)
        echo "real-api: the test kube::real_api was not found" >&2 # a renamed test would pass without having run
        exit 1
        ;;
esac
echo "real-api: the library's watches, statuses, lease and events work with a real API server"
