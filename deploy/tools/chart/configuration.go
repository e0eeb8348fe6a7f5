package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// mainFile is the key of the base configuration in its ConfigMap.
const mainFile = "tallygate.yaml"

// checkConfiguration validates the base configuration in rendered manifests with docs/config.schema.json. The file that it
// includes has departments, subsystems and grants alone, and is no whole configuration.
func checkConfiguration(schemaFile, manifestsFile string) error {
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		return err
	}
	source, err := os.Open(manifestsFile)
	if err != nil {
		return err
	}
	defer source.Close()
	for decoder := yaml.NewDecoder(source); ; {
		var object struct {
			Kind string
			Data map[string]string
		}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return fmt.Errorf("%s has no ConfigMap with %s", manifestsFile, mainFile)
		} else if err != nil {
			return err
		}
		text, found := object.Data[mainFile]
		if object.Kind != "ConfigMap" || !found {
			continue
		}
		var configuration any
		if err := yaml.Unmarshal([]byte(text), &configuration); err != nil {
			return err
		}
		return schema.Validate(configuration)
	}
}
