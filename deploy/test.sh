#!/usr/bin/env bash
# test.sh: the package without a cluster. Charts are rendered with every file of helm/tallygate/ci and checked against the schemas of
# the API server, the Gateway API and the Prometheus operator; wrong values are refused; nothing generated is out of date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=deploy/tools/tools.sh
source tools/tools.sh
tool helm kustomize kubeconform chart

chart=helm/tallygate
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0

pass() {
    passed=$((passed + 1))
    printf 'ok    %s\n' "$*"
}

fail() {
    printf 'FAIL  %s\n' "$*" >&2
    exit 1
}

render() {
    "$tools/helm" template tallygate "$chart" --namespace tallygate-system "$@"
}

# The versions are those of the test cluster, and of the conformance suite that it runs.
KUBERNETES=$(sed -n 's/.*k8s\.io\/kubernetes \(v[0-9.]*\)$/\1/p' ../tests/cluster/kube/go.mod | head -n 1)
GATEWAY_API=v1.6.3
PROMETHEUS_OPERATOR=v0.85.0

# write_schemas: a file for each kind that the chart uses, in which unknown keys are faults.
write_schemas() {
    local openapi gateway prometheus
    openapi=$(module k8s.io/kubernetes "$KUBERNETES")/api/openapi-spec/v3
    gateway=$(module sigs.k8s.io/gateway-api "$GATEWAY_API")/config/crd/standard
    prometheus=$(module github.com/prometheus-operator/prometheus-operator "$PROMETHEUS_OPERATOR")/example/prometheus-operator-crd
    "$tools/chart" manifests "$work/schemas" \
        "$openapi"/{api__v1,apis__apps__v1,apis__autoscaling__v2,apis__networking.k8s.io__v1}_openapi.json \
        "$openapi"/{apis__policy__v1,apis__rbac.authorization.k8s.io__v1,apis__apiextensions.k8s.io__v1}_openapi.json \
        "$chart/crds/tallygate.io.yaml" \
        "$gateway"/gateway.networking.k8s.io_{gatewayclasses,gateways,httproutes}.yaml \
        "$prometheus"/monitoring.coreos.com_{servicemonitors,prometheusrules}.yaml
}

conforms() {
    "$tools/kubeconform" -strict -schema-location "$work/schemas/{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json" "$1"
}

# refused WORDS ARGUMENT...: helm refuses these values, with the path or reason in its message.
refused() {
    local words=$1 message
    shift
    if message=$(render "$@" 2>&1 >/dev/null); then
        fail "accepted: $*"
    fi
    case "$message" in
        *"$words"*) pass "refused: $* ($words)" ;;
        *) fail "refused: $*, but without the words '$words': $message" ;;
    esac
}

# shown WORDS ARGUMENT...: the rendered chart has a line with exactly these words.
shown() {
    local words=$1
    shift
    render "$@" | grep -qFx -- "$words" || fail "not rendered with $*: '$words'"
    pass "rendered with ${*:-the defaults}: ${words#"${words%%[! ]*}"}"
}

(cd tools && go test -count=1 ./...) >/dev/null || fail "go test in deploy/tools"
pass "unit tests of the generator"
./render.sh --check
pass "schema, README, kustomize/base and install.yaml are what the chart makes of them"
"$tools/chart" monitoring ../docs/metrics.md "$chart/files/alerts.yaml" "$chart"/files/dashboard-*.json
pass "alerts and dashboards agree with docs/metrics.md"
if command -v promtool >/dev/null; then
    promtool check rules "$chart/files/alerts.yaml" >/dev/null || fail "promtool refuses files/alerts.yaml"
    pass "promtool accepts the alerts"
fi

write_schemas
for values in "$chart"/ci/*.yaml; do
    "$tools/helm" lint --quiet --strict "$chart" --values "$values" >/dev/null || fail "helm lint with $values"
    render --values "$values" >"$work/rendered.yaml"
    conforms "$work/rendered.yaml" || fail "rendered with $values"
    "$tools/chart" configuration ../docs/config.schema.json "$work/rendered.yaml" || fail "the configuration with $values"
    pass "conforms to Kubernetes $KUBERNETES, and its configuration to docs/config.schema.json: $values"
done
for folder in kustomize/base kustomize/example; do
    "$tools/kustomize" build "$folder" >"$work/rendered.yaml"
    conforms "$work/rendered.yaml" || fail "kustomize build $folder"
    "$tools/chart" configuration ../docs/config.schema.json "$work/rendered.yaml" || fail "the configuration in $folder"
    pass "conforms: kustomize build $folder"
done
conforms "$chart/crds/tallygate.io.yaml" || fail "the chart's CRDs"
pass "conforms: the chart's CRDs"
for kind in departments commandsets grants clientauthpolicies; do
    render --include-crds | grep -qFx "  name: $kind.tallygate.io" || fail "the chart has no CRD $kind"
    grep -qFx "  name: $kind.tallygate.io" install.yaml || fail "install.yaml has no CRD $kind"
done
pass "CRDs of the chart and of install.yaml: all four kinds"
conforms ../examples/kubernetes/department.yaml || fail "examples/kubernetes/department.yaml"
pass "conforms: examples/kubernetes/department.yaml"
# The check must be able to fail.
sed 's/caCertificateRefs/caCertificateRef/' ../examples/kubernetes/department.yaml >"$work/misspelt.yaml"
if conforms "$work/misspelt.yaml" >/dev/null; then
    fail "a misspelt key of a ClientAuthPolicy conforms"
fi
pass "a misspelt key of a ClientAuthPolicy does not conform"
render | sed 's/podManagementPolicy: Parallel/podManagementPolicies: Parallel/' >"$work/rendered.yaml"
if conforms "$work/rendered.yaml" >/dev/null; then
    fail "a misspelt key conforms"
fi
pass "a misspelt key does not conform"

sed 's/addressConnections/adressConnections/' "$work/rendered.yaml" >"$work/misspelt.yaml"
if "$tools/chart" configuration ../docs/config.schema.json "$work/misspelt.yaml" 2>/dev/null; then
    fail "a misspelt key of the configuration conforms"
fi
pass "a misspelt key of the configuration does not conform"

refused "at '': additional properties 'replica' not allowed" --set replica=3
refused "at '/replicas': got string, want integer" --set replicas=many
refused "at '/replicas': minimum: got 0, want 1" --set replicas=0
refused "at '/shutdown/delay'" --set shutdown.delay=5
refused "at '/image/digest'" --set image.digest=latest
refused "at '/service/externalTrafficPolicy': value must be one of 'Local', 'Cluster'" --set service.externalTrafficPolicy=local
refused "at '/ledger/durability'" --set ledger.durability=disk
refused "at '/persistence': additional properties 'storageclass' not allowed" --set persistence.storageclass=fast
refused "at '/capacity': additional properties 'conections' not allowed" --set capacity.conections=1
refused "at '/capacity/inFlight': got string" --set capacity.inFlight=many
refused "at '/pod/tolerations/0': got string, want object" --set 'pod.tolerations[0]=edge'
refused "at '/calendar/offset'" --set calendar.offset=+08:30
refused "workload: Deployment keeps no volume" --set workload=Deployment
refused "persistence.enabled: without volumes" --set persistence.enabled=false
refused "service.externalTrafficPolicy: with Cluster every caller has the address of a node" --set service.externalTrafficPolicy=Cluster
refused "capacity.connectionAge: 1h is too long with autoscaling" --set autoscaling.enabled=true
refused "autoscaling.minReplicas: 8 is more" --set autoscaling.enabled=true --set capacity.connectionAge=10m --set autoscaling.minReplicas=8
refused "service.loadBalancerSourceRanges: a Service of type ClusterIP" --set service.type=ClusterIP --set 'service.loadBalancerSourceRanges[0]=192.0.2.0/24'

shown '      terminationGracePeriodSeconds: 60'
shown '      terminationGracePeriodSeconds: 375' --set shutdown.delay=1m --set shutdown.grace=5m
shown '    resources: [services, configmaps, namespaces]' --set 'secretNamespaces[0]=shop'
shown '            - --secret-namespace' --set 'secretNamespaces[0]=shop'
refused "at '/secretNamespaces/0'" --set 'secretNamespaces[0]=Shop'
shown '            - --no-last-good' --set lastGoodConfiguration=false
shown '  externalTrafficPolicy: Cluster' --set service.externalTrafficPolicy=Cluster --set capacity.addressConnections=10000
shown '  externalTrafficPolicy: Cluster' --set service.externalTrafficPolicy=Cluster --set 'proxyProtocol[0]=10.0.0.0/8'
shown '      inFlight: 20000000' --set capacity.inFlight=20000000
shown '          image: "registry.example/tallygate:2"' --set image.repository=registry.example/tallygate --set-string image.tag=2
if render | grep -v '^ *#' | grep -E 'preStop|resources: \[\*\]|verbs: \[\*\]|apiGroups: \[\*\]|hostNetwork|privileged: true'; then
    fail "the line above must not be in the chart"
fi
pass "no preStop, no wildcard in roles, no privileges"

printf '%s checks passed\n' "$passed"
