# shellcheck shell=bash
# Sourced: the Go tools of this folder, each built once, by name and version, into target/tools/bin.
#
#   tool NAME...         builds what is missing; then `"$tools/NAME" ...` runs it
#   module PATH VERSION  prints the folder of a Go module

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=$(cd "$repository" && realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/tools/bin

# shellcheck source=tests/cluster/go.sh
source "$repository/tests/cluster/go.sh"

# The newest that the Go of tests/cluster/go.sh builds.
HELM=helm.sh/helm/v4/cmd/helm@v4.3.2
KUBECONFORM=github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
KUSTOMIZE=sigs.k8s.io/kustomize/kustomize/v5@v5.8.1

tool() {
    "$repository/scripts/need" go ca-certificates
    use_go
    export CGO_ENABLED=0
    mkdir -p "$tools"
    local name
    for name in "$@"; do
        case "$name" in
            helm) fetch_tool helm "$HELM" ;;
            kubeconform) fetch_tool kubeconform "$KUBECONFORM" ;;
            kustomize) fetch_tool kustomize "$KUSTOMIZE" ;;
            *) (cd "$repository/deploy/tools" && go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$tools/$name" "./$name") ;;
        esac
    done
}

# A file beside the program has its version.
fetch_tool() {
    local name=$1 package=$2
    if [ -x "$tools/$name" ] && [ "$(cat "$tools/$name.version" 2>/dev/null)" = "$package" ]; then
        return
    fi
    printf 'tools: %s; the first time takes up to 2 minutes\n' "$package" >&2
    GOBIN=$tools go install -trimpath -ldflags '-s -w' "$package"
    printf '%s\n' "$package" >"$tools/$name.version"
}

module() {
    # From a folder without a go.mod: versions are those that are asked for.
    (cd / && go mod download -json "$1@$2") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}
