#!/usr/bin/env bash
# render.sh: writes what is generated from the chart: the values' schema, the table of its README, kustomize/base and install.yaml.
# The chart's CRDs are printed by the program: `tallygate crds`; a test of the program says when they are out of date.
# render.sh --check: writes nothing, and fails if one of them is not as it would be written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# shellcheck source=deploy/tools/tools.sh
source tools/tools.sh
tool helm kustomize chart

chart=helm/tallygate
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

# Objects that nobody manages with Helm do not say that Helm manages them.
render_base() {
    "$tools/helm" template tallygate "$chart" --namespace tallygate-system |
        sed -e '/helm\.sh\/chart:/d' -e '/app\.kubernetes\.io\/managed-by: Helm$/d' -e '/^# Source: /d'
}

# write FILE: stdin becomes the file, or in a check its fresh copy.
write() {
    mkdir -p "$fresh/$(dirname "$1")"
    cat >"$fresh/$1"
}

"$tools/chart" schema "$chart/values.yaml" ../docs/config.schema.json | write "$chart/values.schema.json"
mark='<!-- generated from values.yaml by deploy/render.sh -->'
{
    sed "\|^$mark\$|q" "$chart/README.md"
    echo
    "$tools/chart" table "$chart/values.yaml"
} | write "$chart/README.md"

# The chart is rendered with the schema that it will have.
cp -r "$chart" "$fresh/chart"
cp "$fresh/$chart/values.schema.json" "$fresh/chart/"
chart=$fresh/chart
header='# Rendered from deploy/helm/tallygate by deploy/render.sh.'
{
    printf '%s\n' "$header"
    render_base
} | write kustomize/base/tallygate.yaml
write kustomize/base/crds.yaml <"$chart/crds/tallygate.io.yaml"
cp kustomize/base/kustomization.yaml "$fresh/kustomize/base/"
{
    printf '%s\n' "$header" '# docs/kubernetes.md, Install. The namespace is made before, and stays when this file is deleted: it has the ledgers.'
    "$tools/kustomize" build "$fresh/kustomize/base"
} | write install.yaml
rm -r "$fresh/chart"

failed=
while read -r file; do
    if cmp -s "$fresh/$file" "$file"; then
        continue
    fi
    if [ "${1-}" = --check ]; then
        diff -u "$file" "$fresh/$file" | head -n 40 >&2 || true
        failed=1
    else
        cp "$fresh/$file" "$file"
        printf 'render: %s\n' "$file"
    fi
done < <(cd "$fresh" && find . -type f -printf '%P\n' | sort)
if [ -n "$failed" ]; then
    echo "render: these files differ from what the chart makes of them; run deploy/render.sh" >&2
    exit 1
fi
