#!/usr/bin/env bash
# build.sh FOLDER: builds prometheus and promtool 3 from their Go module into FOLDER, for `make prometheus3-test`.
# Service discoveries but file and http are left out, and so is the web page: no test uses them.
set -euo pipefail

out=$(realpath -m "${1:?usage: build.sh FOLDER}")
mkdir -p "$out"
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/cluster/go.sh
. ../cluster/go.sh
use_go
export CGO_ENABLED=0 GOFLAGS=-mod=readonly
version=$(go list -m -f '{{.Version}}' github.com/prometheus/prometheus)
printf 'build: prometheus and promtool, module %s\n' "$version" >&2
package=github.com/prometheus/common/version
go build -tags remove_all_sd -ldflags "-s -w -X $package.Version=$version" -o "$out" \
    github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
