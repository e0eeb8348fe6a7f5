package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// schemaMark begins a comment line with JSON Schema for the key below it.
	schemaMark = "@schema "
	// sectionMark begins a comment line that names a section of the program's configuration: all its keys are values too.
	sectionMark = "@configuration "
)

// value is one key of values.yaml.
type value struct {
	path        string
	node        *yaml.Node
	description string
	schema      map[string]any
	section     string
	children    []value
}

func readValues(file string) ([]value, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	values, err := childrenOf("", document.Content[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return values, nil
}

func childrenOf(path string, mapping *yaml.Node) ([]value, error) {
	var children []value
	var faults []error
	for i := 0; i < len(mapping.Content); i += 2 {
		child, err := readValue(path, mapping.Content[i], mapping.Content[i+1])
		faults = append(faults, err)
		children = append(children, child)
	}
	return children, errors.Join(faults...)
}

func readValue(parent string, key, node *yaml.Node) (value, error) {
	v := value{path: strings.TrimPrefix(parent+"."+key.Value, "."), node: node, schema: map[string]any{}}
	var words []string
	for line := range strings.Lines(key.HeadComment) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		if annotation, found := strings.CutPrefix(line, schemaMark); found {
			if err := json.Unmarshal([]byte(annotation), &v.schema); err != nil {
				return v, fmt.Errorf("line %d: %s: %s%w", key.Line, v.path, schemaMark, err)
			}
			continue
		}
		if section, found := strings.CutPrefix(line, sectionMark); found {
			v.section = section
			continue
		}
		words = append(words, line)
	}
	v.description = strings.TrimSpace(strings.Join(words, " "))
	_, isOpen := v.schema["additionalProperties"]
	switch {
	case node.Kind == yaml.MappingNode && len(node.Content) > 0:
		var err error
		v.children, err = childrenOf(v.path, node)
		return v, err
	case v.description == "":
		return v, fmt.Errorf("line %d: %s has no description above it", key.Line, v.path)
	case node.Kind == yaml.MappingNode && !isOpen:
		return v, fmt.Errorf("line %d: %s is empty: say with @schema what additionalProperties are", key.Line, v.path)
	case node.Kind == yaml.SequenceNode && v.schema["items"] == nil:
		return v, fmt.Errorf("line %d: %s is a list: say with @schema what its items are", key.Line, v.path)
	}
	return v, nil
}

// sections are those of the program's configuration, each with the schemas of its keys.
type sections map[string]struct {
	Properties map[string]any
}

func readSections(file string) (sections, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var schema struct{ Properties sections }
	if err := json.Unmarshal(text, &schema); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return schema.Properties, nil
}

func printSchema(file, configuration string) error {
	values, err := readValues(file)
	if err != nil {
		return err
	}
	known, err := readSections(configuration)
	if err != nil {
		return err
	}
	schema, err := known.objectSchema(values)
	if err != nil {
		return err
	}
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Values of the chart tallygate"
	// Helm adds this key when the chart is a part of another one.
	schema["properties"].(map[string]any)["global"] = map[string]any{"type": "object"}
	return printJSON(schema)
}

func (known sections) objectSchema(values []value) (map[string]any, error) {
	properties := map[string]any{}
	for _, v := range values {
		schema, err := known.valueSchema(v)
		if err != nil {
			return nil, err
		}
		properties[v.path[strings.LastIndex(v.path, ".")+1:]] = schema
	}
	// A misspelt key is refused, with its path.
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}, nil
}

func (known sections) valueSchema(v value) (map[string]any, error) {
	schema := map[string]any{}
	if v.node.Kind == yaml.MappingNode {
		var err error
		if schema, err = known.objectSchema(v.children); err != nil {
			return nil, err
		}
		if err := known.addSection(v, schema["properties"].(map[string]any)); err != nil {
			return nil, err
		}
	} else {
		kind, found := map[string]string{
			"!!bool": "boolean", "!!float": "number", "!!int": "integer", "!!seq": "array", "!!str": "string",
		}[v.node.Tag]
		if !found {
			return nil, fmt.Errorf("line %d: %s: no type follows from a default with the tag %s", v.node.Line, v.path, v.node.Tag)
		}
		schema["type"] = kind
	}
	if v.description != "" {
		schema["description"] = v.description
	}
	for key, rule := range v.schema {
		schema[key] = rule
	}
	return schema, nil
}

// addSection adds the keys of a value's section. The chart's own keys may be stricter, and stay.
func (known sections) addSection(v value, properties map[string]any) error {
	if v.section == "" {
		return nil
	}
	keys := known[v.section].Properties
	for key := range properties {
		if keys[key] == nil {
			return fmt.Errorf("line %d: the configuration has no key %s.%s", v.node.Line, v.section, key)
		}
	}
	for key, schema := range keys {
		if properties[key] == nil {
			properties[key] = schema
		}
	}
	return nil
}

func printTable(file string) error {
	values, err := readValues(file)
	if err != nil {
		return err
	}
	fmt.Println("| value | default | meaning |")
	fmt.Println("|---|---|---|")
	return printRows(values)
}

func printRows(values []value) error {
	for _, v := range values {
		if len(v.children) > 0 && v.description == "" {
			if err := printRows(v.children); err != nil {
				return err
			}
			continue
		}
		shown := ""
		if len(v.children) == 0 {
			text, err := defaultText(v.node)
			if err != nil {
				return err
			}
			shown = "`" + text + "`"
		}
		fmt.Printf("| `%s` | %s | %s |\n", v.path, shown, strings.ReplaceAll(v.description, "|", `\|`))
		if err := printRows(v.children); err != nil {
			return err
		}
	}
	return nil
}

// defaultText is JSON, except for text that needs no quotes.
func defaultText(node *yaml.Node) (string, error) {
	if node.Kind == yaml.ScalarNode && node.Value != "" {
		return node.Value, nil
	}
	var decoded any
	if err := node.Decode(&decoded); err != nil {
		return "", err
	}
	text, err := json.Marshal(decoded)
	return string(text), err
}

func printJSON(document any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}
