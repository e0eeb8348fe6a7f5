#!/usr/bin/env bash
# test-cluster.sh: the package on a real kubelet (tests/cluster), on a cluster of its own, which ends with the script.
#
# It tests what the package promises to the program and to its operator; tools/standin stands in for the gateway. Under restricted pod
# security: installed by Helm and by install.yaml, rolled under load, a broken revision, a killed process, removed, installed again.
#
# --keep  leaves the cluster running: CLUSTER=chart tests/cluster/kubectl -n tallygate-system get all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD

# shellcheck source=deploy/tools/tools.sh
source tools/tools.sh
tool helm standin

export CLUSTER=${CLUSTER:-chart}
namespace=tallygate-system
account=system:serviceaccount:$namespace:tallygate
work=$(mktemp -d)

cluster() {
    "$repository/tests/cluster/cluster" "$@"
}

kubectl() {
    cluster kubectl "$@"
}

inside() {
    kubectl --namespace "$namespace" "$@"
}

helm() {
    cluster enter "$tools/helm" --namespace "$namespace" "$@"
}

pass() {
    printf 'ok    %3d s  %s\n' "$SECONDS" "$*"
}

fail() {
    printf 'FAIL  %3d s  %s\n' "$SECONDS" "$*" >&2
    inside get pods,pvc,events >&2 || true
    exit 1
}

# equal WHAT FOUND WANTED
equal() {
    [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
    pass "$1: $3"
}

# within SECONDS COMMAND...: until the command succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not in time: $*"
        sleep 0.3
    done
}

end() {
    if [ -n "${load-}" ]; then
        kill "$load" 2>/dev/null || true
    fi
    [ -n "${keep-}" ] || cluster down >&2
    rm -rf "$work"
}

GATEWAY_API=v1.6.3
WAIT=(--wait --timeout 120s)
KEEP=(--reset-then-reuse-values)
keep=
[ "${1-}" != --keep ] || keep=1
trap end EXIT

start() {
    cluster up
    image/build.sh --program "$tools/standin"
    cluster import "$target/image-of-program/tallygate.oci" 2>/dev/null
    kubectl create namespace "$namespace" >/dev/null
    kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
    client=$(cluster client outside)
}

# load SECONDS: new connections from outside, in the background.
begin_load() {
    local address
    address=$(inside get service tallygate -o jsonpath='{.status.loadBalancer.ingress[0].ip}')
    nsenter --net="/run/netns/$client" -- "$target/cluster/bin/echo" load "http://$address/" "$1" >"$work/load" 2>&1 &
    load=$!
}

end_load() {
    wait "$load" || fail "$1: $(cat "$work/load")"
    load=
    pass "$1: $(cat "$work/load")"
}

ask() {
    local address
    address=$(inside get service tallygate -o jsonpath='{.status.loadBalancer.ingress[0].ip}')
    nsenter --net="/run/netns/$client" -- "$target/cluster/bin/echo" get "http://$address/"
}

# How often the process of a pod has started, by the file in its volume.
starts() {
    local address
    address=$(inside get pod "$1" -o jsonpath='{.status.podIP}')
    nsenter --net="/run/netns/kc-$CLUSTER" -- "$target/cluster/bin/echo" get "http://$address:9090/starts" | sed 's/.* starts //'
}

image_of() {
    inside get pod "$1" -o jsonpath='{.spec.containers[0].image}'
}

volumes() {
    inside get pvc -o jsonpath='{range .items[*]}{.metadata.name}={.spec.volumeName} {.status.phase} {end}'
}

install_needs_crds() {
    local message
    if message=$(helm install tallygate "$here/helm/tallygate" 2>&1); then
        fail "installed without the CRDs of the Gateway API"
    fi
    case "$message" in
        *"the cluster has no CRDs of the Gateway API"*) pass "refused without CRDs, and it says so" ;;
        *) fail "without CRDs: $message" ;;
    esac
    kubectl apply --server-side -f "$(module sigs.k8s.io/gateway-api "$GATEWAY_API")/config/crd/standard" >/dev/null
}

install_by_helm() {
    helm install tallygate "$here/helm/tallygate" "${WAIT[@]}" >/dev/null
    equal "ready pods" "$(inside get statefulset tallygate -o jsonpath='{.status.readyReplicas}')" 2
    case "$(volumes)" in
        "ledger-tallygate-0=pvc-"*" Bound ledger-tallygate-1=pvc-"*" Bound ") pass "a volume for each pod, bound" ;;
        *) fail "the volumes are $(volumes)" ;;
    esac
    local policy
    policy=$(inside get service tallygate -o jsonpath='{.spec.externalTrafficPolicy}')
    equal "externalTrafficPolicy" "$policy" Local
    within 10 ask
    case "$(ask)" in
        *"caller 10.99."*) pass "the pod sees the caller's own address" ;;
        *) fail "the pod sees another address: $(ask)" ;;
    esac
    kubectl get gatewayclass/tallygate ingressclass/tallygate -o name >/dev/null
    pass "both classes"
}

# may yes|no VERB RESOURCE [ARGUMENT...]
may() {
    local wanted=$1 found
    shift
    found=$(kubectl auth can-i --as "$account" "$@" 2>/dev/null || true)
    [ "$found" = "$wanted" ] || fail "may it $*? $found, not $wanted"
    rights=$((rights + 1))
}

check_rights() {
    rights=0
    local kind
    for kind in gatewayclasses gateways listenersets httproutes grpcroutes tlsroutes referencegrants backendtlspolicies; do
        may yes watch "$kind.gateway.networking.k8s.io" --all-namespaces
        may no update "$kind.gateway.networking.k8s.io" --all-namespaces
        may no patch "$kind.gateway.networking.k8s.io" --all-namespaces
    done
    for kind in gatewayclasses gateways listenersets httproutes grpcroutes tlsroutes backendtlspolicies; do
        may yes patch "$kind.gateway.networking.k8s.io" --subresource status --all-namespaces
    done
    for kind in departments commandsets grants clientauthpolicies; do
        may yes watch "$kind.tallygate.io" --all-namespaces
        may yes patch "$kind.tallygate.io" --subresource status --all-namespaces
        may no patch "$kind.tallygate.io" --all-namespaces
    done
    for kind in ingresses.networking.k8s.io ingressclasses.networking.k8s.io secrets configmaps namespaces; do
        may yes list "$kind" --all-namespaces
        may no patch "$kind" --all-namespaces
        may no delete "$kind" --all-namespaces
    done
    # Those of Gateways, in the namespaces of the Gateways.
    for kind in services endpointslices.discovery.k8s.io; do
        may yes list "$kind" --all-namespaces
        may yes patch "$kind" --all-namespaces
        may yes delete "$kind" --all-namespaces
        may no update "$kind" --all-namespaces
    done
    may yes patch ingresses.networking.k8s.io --subresource status --all-namespaces
    may no create secrets --namespace "$namespace"
    may no get nodes
    may no get pods --namespace "$namespace"
    may no create pods --namespace "$namespace"
    may yes create events --namespace default
    may yes update leases.coordination.k8s.io --namespace "$namespace"
    may no update leases.coordination.k8s.io --namespace kube-system
    pass "rights of the ServiceAccount: $rights questions"
}

roll() {
    local before after
    before=$(volumes)
    begin_load 25
    inside rollout restart statefulset/tallygate >/dev/null
    inside rollout status statefulset/tallygate --timeout=120s >/dev/null
    end_load "rolled under load"
    equal "starts of tallygate-0 in its volume" "$(starts tallygate-0)" 2
    equal "starts of tallygate-1 in its volume" "$(starts tallygate-1)" 2
    after=$(volumes)
    [ "$before" = "$after" ] || fail "the volumes were $before, and are $after"
    pass "the same volumes"
}

# A revision whose image does not exist, then back, without help: that needs Parallel.
roll_broken_image() {
    local good
    good=$(image_of tallygate-0)
    begin_load 15
    helm upgrade tallygate "$here/helm/tallygate" "${KEEP[@]}" --set image.tag=absent --set image.pullPolicy=Never >/dev/null
    within 60 is_waiting tallygate-1
    equal "image of tallygate-0 meanwhile" "$(image_of tallygate-0)" "$good"
    helm rollback tallygate "${WAIT[@]}" >/dev/null
    inside rollout status statefulset/tallygate --timeout=120s >/dev/null
    end_load "a broken revision and back, under load"
    equal "image of tallygate-1" "$(image_of tallygate-1)" "$good"
}

is_waiting() {
    [ "$(inside get pod "$1" -o jsonpath='{.status.containerStatuses[0].state.waiting.reason}')" = ErrImageNeverPull ]
}

kill_process() {
    local container process before
    before=$(starts tallygate-0)
    container=$(inside get pod tallygate-0 -o jsonpath='{.status.containerStatuses[0].containerID}')
    process=$(cluster enter ctr tasks list | awk -v id="${container#containerd://}" '$1 == id { print $2 }')
    cluster enter kill -KILL "$process"
    within 60 is_restarted tallygate-0
    inside wait pod/tallygate-0 --for=condition=Ready --timeout=60s >/dev/null
    equal "starts after SIGKILL" "$(starts tallygate-0)" "$((before + 1))"
}

is_restarted() {
    [ "$(inside get pod "$1" -o jsonpath='{.status.containerStatuses[0].restartCount}')" -ge 1 ]
}

change_configuration() {
    local before
    before=$(inside get pod tallygate-1 -o jsonpath='{.metadata.uid}')
    helm upgrade tallygate "$here/helm/tallygate" "${KEEP[@]}" --set-string 'extraConfig=grants: []' "${WAIT[@]}" >/dev/null
    inside rollout status statefulset/tallygate --timeout=120s >/dev/null
    [ "$before" != "$(inside get pod tallygate-1 -o jsonpath='{.metadata.uid}')" ] || fail "a changed base configuration replaces no pod"
    before=$(inside get pod tallygate-1 -o jsonpath='{.metadata.uid}')
    helm upgrade tallygate "$here/helm/tallygate" "${KEEP[@]}" --set-string 'extraConfig=departments: []' "${WAIT[@]}" >/dev/null
    equal "pod after a change of extraConfig" "$(inside get pod tallygate-1 -o jsonpath='{.metadata.uid}')" "$before"
}

# The steps of docs/kubernetes.md for a volume that is lost for good.
replace_volume() {
    local before kept
    before=$(inside get pvc ledger-tallygate-1 -o jsonpath='{.spec.volumeName}')
    kept=$(inside get pvc ledger-tallygate-0 -o jsonpath='{.spec.volumeName}')
    inside delete pvc ledger-tallygate-1 --wait=false >/dev/null
    inside delete pod tallygate-1 >/dev/null
    within 60 has_other_volume ledger-tallygate-1 "$before"
    inside rollout status statefulset/tallygate --timeout=120s >/dev/null
    equal "starts in a new volume" "$(starts tallygate-1)" 1
    equal "volume of the other pod" "$(inside get pvc ledger-tallygate-0 -o jsonpath='{.spec.volumeName}')" "$kept"
}

has_other_volume() {
    local name
    name=$(inside get pvc "$1" -o jsonpath='{.spec.volumeName}')
    [ -n "$name" ] && [ "$name" != "$2" ]
}

# The steps of docs/kubernetes.md for a larger volume: pods serve on while their StatefulSet is replaced.
change_claim_template() {
    local before
    before=$(inside get pods -o jsonpath='{.items[*].metadata.uid}')
    inside delete statefulset tallygate --cascade=orphan >/dev/null
    helm upgrade tallygate "$here/helm/tallygate" "${KEEP[@]}" --set persistence.size=16Gi "${WAIT[@]}" >/dev/null
    equal "pods after a larger claim" "$(inside get pods -o jsonpath='{.items[*].metadata.uid}')" "$before"
}

remove_and_install_again() {
    local before
    before=$(volumes)
    helm uninstall tallygate --wait >/dev/null
    within 60 no_pods
    equal "volumes after helm uninstall" "$(volumes)" "$before"
    [ -z "$(kubectl get clusterrole,clusterrolebinding,gatewayclass,ingressclass -l app.kubernetes.io/name=tallygate -o name)" ] ||
        fail "objects of the cluster are left"
    pass "nothing else is left"
    kubectl apply --server-side -f install.yaml >/dev/null
    inside rollout status statefulset/tallygate --timeout=120s >/dev/null
    equal "volumes after kubectl apply -f install.yaml" "$(volumes)" "$before"
    [ "$(starts tallygate-0)" -ge 5 ] || fail "the volume was emptied"
    pass "the ledgers are found again: $(starts tallygate-0) starts"
    kubectl delete -f install.yaml --wait >/dev/null
    within 60 no_pods
    equal "volumes after kubectl delete -f install.yaml" "$(volumes)" "$before"
}

no_pods() {
    [ -z "$(inside get pods -o name)" ]
}

start
install_needs_crds
install_by_helm
check_rights
change_claim_template
roll
roll_broken_image
kill_process
change_configuration
replace_volume
remove_and_install_again
echo "all is well"
