# shellcheck shell=bash
# Sourced: use_go puts a Go that can build the cluster first in PATH.

# Go 1.21 and newer fetch the toolchain that a go.mod names by themselves. Debian 12 has 1.19: with it, the same
# toolchain is fetched as the Go module that it is, and checked by Go's own checksums.
GO_TOOLCHAIN=go1.26.8

use_go() {
    local found
    found=$(go env GOVERSION)
    if [ "$(printf 'go1.21\n%s\n' "$found" | sort -V | head -n 1)" = go1.21 ]; then
        return
    fi
    local module architecture folder
    architecture=$(go env GOARCH)
    module=golang.org/toolchain@v0.0.1-$GO_TOOLCHAIN.linux-$architecture
    folder=$(go env GOMODCACHE)/$module
    if [ ! -x "$folder/bin/go" ]; then
        printf 'build: %s is too old, fetching %s\n' "$found" "$GO_TOOLCHAIN" >&2
        fetch_toolchain "$module" "$folder"
    fi
    PATH=$folder/bin:$PATH
    export PATH GOTOOLCHAIN=local
}

# Modules are extracted without the right to execute, and with another name of go.mod.
fetch_toolchain() {
    local module=$1 folder=$2 empty
    empty=$(mktemp -d)
    printf 'module toolchain\n' >"$empty/go.mod"
    (cd "$empty" && go mod download "$module")
    rm -rf "$empty"
    chmod u+w "$folder/src"
    cp "$folder/src/_go.mod" "$folder/src/go.mod"
    find "$folder/pkg/tool" -type f -exec chmod +x {} +
    chmod +x "$folder/bin/gofmt" "$folder/bin/go" # last: it says that the rest is done
}
