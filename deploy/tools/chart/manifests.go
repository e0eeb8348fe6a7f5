package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeManifestSchemas writes FOLDER/KIND-GROUP-VERSION.json for each kind of the given documents, named as kubeconform asks:
// kinds in lower case, and the core group called by its version. Unknown keys are faults in all of them.
func writeManifestSchemas(folder string, files []string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		write := writeFromOpenAPI
		if strings.HasSuffix(file, ".yaml") {
			write = writeFromDefinitions
		}
		if err := write(folder, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// writeFromOpenAPI takes a document of the API server, as /openapi/v3 has them.
func writeFromOpenAPI(folder, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var document struct {
		Components struct {
			Schemas map[string]map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return err
	}
	schemas := document.Components.Schemas
	for _, schema := range schemas {
		closeObjects(schema)
	}
	for name, schema := range schemas {
		kinds, _ := schema["x-kubernetes-group-version-kind"].([]any)
		// Types such as DeleteOptions belong to many groups and are no manifests.
		if len(kinds) != 1 {
			continue
		}
		kind := kinds[0].(map[string]any)
		whole := map[string]any{
			"$ref":       "#/components/schemas/" + name,
			"components": map[string]any{"schemas": schemas},
		}
		name, group, version := kind["kind"].(string), kind["group"].(string), kind["version"].(string)
		if err := writeSchema(folder, name, cmp.Or(group, version), version, whole); err != nil {
			return err
		}
	}
	return nil
}

// writeFromDefinitions takes CustomResourceDefinitions.
func writeFromDefinitions(folder, file string) error {
	source, err := os.Open(file)
	if err != nil {
		return err
	}
	defer source.Close()
	decoder := yaml.NewDecoder(source)
	for {
		var definition struct {
			Kind string
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		if err := decoder.Decode(&definition); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if definition.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range definition.Spec.Versions {
			schema := version.Schema.OpenAPIV3Schema
			closeObjects(schema)
			properties := schema["properties"].(map[string]any)
			// The API server adds these to each definition.
			properties["metadata"] = map[string]any{"type": "object"}
			kind, group := definition.Spec.Names.Kind, definition.Spec.Group
			if err := writeSchema(folder, kind, group, version.Name, schema); err != nil {
				return err
			}
		}
	}
}

func writeSchema(folder, kind, group, version string, schema map[string]any) error {
	name := fmt.Sprintf("%s-%s-%s.json", strings.ToLower(kind), group, version)
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name), text, 0o644)
}

// closeObjects refuses keys that a schema does not name, and accepts both kinds of IntOrString.
func closeObjects(node any) {
	switch node := node.(type) {
	case map[string]any:
		properties, hasProperties := node["properties"].(map[string]any)
		_, isOpen := node["additionalProperties"]
		keepsUnknown, _ := node["x-kubernetes-preserve-unknown-fields"].(bool)
		if hasProperties && len(properties) > 0 && !isOpen && !keepsUnknown && node["type"] == "object" {
			node["additionalProperties"] = false
		}
		if either, _ := node["x-kubernetes-int-or-string"].(bool); either {
			delete(node, "type")
		}
		for _, child := range node {
			closeObjects(child)
		}
	case []any:
		for _, child := range node {
			closeObjects(child)
		}
	}
}
