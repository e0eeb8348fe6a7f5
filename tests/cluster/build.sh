#!/usr/bin/env bash
# build.sh FOLDER PROGRAM...: builds programs of the cluster from Go modules into FOLDER.
# The first time takes minutes; later ones seconds, by Go's own caches.
set -euo pipefail

out=$(realpath -m "${1:?usage: build.sh FOLDER PROGRAM...}")
shift
mkdir -p "$out"
cd "$(dirname "${BASH_SOURCE[0]}")"

# Static programs: the images are FROM scratch.
export CGO_ENABLED=0

say() {
    printf '%s\n' "$*" >&2
}

# The version that a go.mod asks for: programs report it.
version_of() {
    (cd "$1" && go list -m -f '{{.Version}}' "$2")
}

kubernetes_flags() {
    local version major minor
    version=$(version_of kube k8s.io/kubernetes)
    IFS=. read -r major minor _ <<<"${version#v}"
    local package=k8s.io/component-base/version
    printf -- '-X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s' \
        "$package" "$version" "$package" "$major" "$package" "$minor"
}

containerd_flags() {
    local module=github.com/containerd/containerd/v2
    printf -- '-X %s/version.Version=%s' "$module" "$(version_of containerd "$module")"
}

# compile FOLDER PACKAGE PROGRAM [FLAGS OF THE LINKER]
compile() {
    (cd "$1" && go build -trimpath -buildvcs=false -ldflags "-s -w ${4-}" -o "$out/$3" "$2")
}

# Shows on a terminal that the long build is alive. It ends with the build, or with this script, however that ends.
show_time() {
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        printf '\rbuild: %s %d s ' "$1" $((SECONDS - $2)) >&2
    done
}

# Go's caches hold 2 GB of sources and 4 GB of objects after the first build.
warn_of_space() {
    local cache free
    cache=$(go env GOCACHE)
    mkdir -p "$cache"
    free=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1048576) }')
    if [ "$free" -lt 8 ]; then
        say "build: $cache has $free GiB of space, and the first build needs 8. Another folder: GOCACHE and GOMODCACHE"
    fi
}

# The large programs depend on few files of ours: go build needs seconds to find out that nothing has changed.
is_fresh() {
    local folder
    case "$1" in
        kube) folder=kube ;;
        containerd | containerd-shim-runc-v2 | ctr) folder=containerd ;;
        *) return 1 ;;
    esac
    [ -e "$out/$1" ] && [ -z "$(find "$folder" build.sh go.sh -newer "$out/$1")" ]
}

# The first build of the two large programs is long; a later one is not.
announce() {
    [ ! -e "$out/$1" ] || return 0
    case "$1" in
        kube)
            say "build: kube (etcd, Kubernetes and kubectl; about 6 minutes on 2 idle cores)"
            warn_of_space
            ;;
        containerd) say "build: containerd (1 to 2 minutes)" ;;
    esac
}

build() {
    local program=$1 start=$SECONDS ticker=
    if is_fresh "$program"; then
        return
    fi
    announce "$program"
    if [ -t 2 ]; then
        show_time "$program" "$start" &
        ticker=$!
    fi
    local failed=
    case "$program" in
        kube) compile kube . kube "$(kubernetes_flags)" || failed=1 ;;
        containerd | containerd-shim-runc-v2 | ctr)
            local package=github.com/containerd/containerd/v2/cmd/$program
            compile containerd "$package" "$program" "$(containerd_flags)" || failed=1
            ;;
        node | pause | echo) compile . "./$program" "$program" || failed=1 ;;
        *) say "build: no program is called $program" && failed=1 ;;
    esac
    if [ -n "$ticker" ]; then
        kill "$ticker"
        wait "$ticker" 2>/dev/null || true
        printf '\r\033[K' >&2
    fi
    if [ -n "$failed" ]; then
        say "build: $program failed. Go fetches modules from its proxy: is there a network?"
        exit 1
    fi
    touch "$out/$program" # go build leaves a program alone that is as it should be
    if [ $((SECONDS - start)) -ge 2 ]; then
        say "build: $program, $((SECONDS - start)) s"
    fi
}

for program in "$@"; do
    build "$program"
done
