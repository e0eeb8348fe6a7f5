// Generates and checks what belongs to the chart.
//
//	chart schema VALUES SCHEMA                  JSON Schema of the values, from values.yaml, its comments, and the program's schema
//	chart table VALUES                          Markdown table of the values
//	chart manifests FOLDER FILE...              schemas for kubeconform, from OpenAPI documents (.json) and CRDs (.yaml)
//	chart configuration SCHEMA MANIFESTS        the base configuration in a ConfigMap conforms to the program's schema
//	chart monitoring METRICS ALERTS DASHBOARD...  alerts and dashboards agree with the page of the metrics
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "schema":
		return printSchema(args[1], args[2])
	case len(args) == 2 && args[0] == "table":
		return printTable(args[1])
	case len(args) > 2 && args[0] == "manifests":
		return writeManifestSchemas(args[1], args[2:])
	case len(args) == 3 && args[0] == "configuration":
		return checkConfiguration(args[1], args[2])
	case len(args) >= 4 && args[0] == "monitoring":
		return checkMonitoring(args[1], args[2], args[3:])
	}
	return fmt.Errorf("unknown arguments %q", args)
}
