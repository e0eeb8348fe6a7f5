#!/usr/bin/env bash
# build.sh [--program FILE]: the image, its digest and its bill of materials, in target/image (of another program, in
# target/image-of-program):
#
#   tallygate.oci          OCI archive, as `localhost/tallygate:VERSION`
#   digest                 digest of its manifest: equal for equal sources, wherever and whenever it is built
#   tallygate.cdx.json     software bill of materials (CycloneDX)
#
# --program FILE   packs this program instead of building ours, and writes no bill of materials
# SOURCE_DATE_EPOCH  the image's only time; the default is the time of the last commit
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD
repository=$(cd ../.. && pwd)

LARGEST_IMAGE_KIB=$((40 * 1024))

fail() {
    printf 'image: %s\n' "$*" >&2
    exit 1
}

program=
case "${1-}" in
    '') ;;
    --program) program=$(realpath -e "${2:?usage: build.sh --program FILE}") ;;
    *) fail "unknown argument $1; usage: build.sh [--program FILE]" ;;
esac

"$repository/scripts/need" buildah readelf
target=$(cd "$repository" && realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target/image${program:+-of-program}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1)
revision=$(git -C "$repository" rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$repository" status --porcelain 2>/dev/null)" ] || revision=$revision-changed
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
name=localhost/tallygate:$version

# In a target folder of its own, because other flags would compile all dependencies again, each time. With --target the flags
# do not reach build scripts and macros, which cannot be static.
build_program() {
    "$repository/scripts/need" cargo cc make
    local platform cargo_home
    platform=$(rustc -vV | sed -n 's/^host: //p')
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    # No path of this machine and no build id in the program.
    local maps="--remap-path-prefix=$repository=/tallygate --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$target=/target"
    local c_maps="-ffile-prefix-map=$repository=/tallygate -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$target=/target"
    (
        cd "$repository"
        unset CARGO_ENCODED_RUSTFLAGS
        export RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,--build-id=none -C strip=debuginfo $maps"
        export CFLAGS="${CFLAGS-} $c_maps" CXXFLAGS="${CXXFLAGS-} $c_maps"
        export CARGO_TARGET_DIR=$target/static CARGO_INCREMENTAL=0
        cargo build --locked --release --bin tallygate --target "$platform"
    )
    program=$target/static/$platform/release/tallygate
}

# Called as a condition, so `set -e` is off inside.
is_static() {
    ! readelf --program-headers --wide "$1" | grep -q INTERP &&
        ! readelf --dynamic "$1" 2>/dev/null | grep -q NEEDED
}

# buildah with a storage of its own, and a driver that mounts nothing.
buildah_here() {
    buildah --storage-driver vfs --root "$work/storage" --runroot "$work/state" "$@"
}

pack() {
    cp "$here/Containerfile" "$work/context/"
    cp "$program" "$work/context/tallygate"
    local labels=(
        --label "org.opencontainers.image.title=tallygate"
        --label "org.opencontainers.image.description=A gateway that meters every command exactly"
        --label "org.opencontainers.image.version=$version"
        --label "org.opencontainers.image.revision=$revision"
        --label "org.opencontainers.image.created=$created"
        --label "org.opencontainers.image.licenses=Apache-2.0"
    )
    buildah_here bud --quiet --isolation chroot --format oci --layers=false --timestamp "$SOURCE_DATE_EPOCH" \
        --identity-label=false "${labels[@]}" --tag "$name" "$work/context" >/dev/null
    rm -f "$out/tallygate.oci"
    buildah_here push --quiet --digestfile "$out/digest" "$name" "oci-archive:$out/tallygate.oci:$name"
}

# Without what differs between two runs: a serial number, the time, and the folder of the sources.
write_bill() {
    make --no-print-directory -C "$repository" sbom >/dev/null
    sed -e '/^  "serialNumber": /d' -e "s|^\(    \"timestamp\": \"\)[^\"]*|\1$created|" -e "s|$repository|/tallygate|g" \
        "$target/tallygate.cdx.json" >"$out/tallygate.cdx.json"
}

rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/context"

if [ -z "$program" ]; then
    build_program
    write_bill
fi
is_static "$program" || fail "$program needs a loader or libraries, which an image FROM scratch does not have"
pack
size=$(du -k --apparent-size "$program" | cut -f1)
[ "$size" -le "$LARGEST_IMAGE_KIB" ] || fail "the program has $size KiB; the image may have $LARGEST_IMAGE_KIB"
printf 'image: %s, %s KiB (%s KiB packed), %s\n' "$name" "$size" "$(du -k "$out/tallygate.oci" | cut -f1)" "$(cat "$out/digest")"
printf 'image: %s\n' "$out"/*
