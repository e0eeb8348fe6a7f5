package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFaultyValuesAreRefusedWithTheirPath(t *testing.T) {
	cases := []struct{ name, text, words string }{
		{"no description", "replicas: 2\n", "line 1: replicas has no description"},
		{"nested", "# Image.\nimage:\n  tag: a\n", "line 3: image.tag has no description"},
		{"broken schema", "# Number.\n# @schema {\"minimum\": }\nreplicas: 2\n", "line 3: replicas: @schema"},
		{"empty map", "# Labels.\nlabels: {}\n", "labels is empty: say with @schema"},
		{"list", "# Ranges.\nranges: []\n", "ranges is a list: say with @schema"},
		{"null", "# Number.\nnumber:\n", "number: no type follows"},
		{"unknown key of a section", "# @configuration capacity\ncapacity:\n  # Not there.\n  size: 1\n", "no key capacity.size"},
	}
	configuration := write(t, `{"properties": {"capacity": {"properties": {"connections": {"type": "integer"}}}}}`)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := printSchema(write(t, c.text), configuration)
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v does not contain %q", err, c.words)
			}
		})
	}
}

func TestSectionAddsItsKeysAndKeepsStricterOnes(t *testing.T) {
	values, err := readValues(write(t, "# @configuration capacity\ncapacity:\n  # Most.\n  # @schema {\"minimum\": 1}\n  connections: 5\n"))
	if err != nil {
		t.Fatal(err)
	}
	known, err := readSections(write(t, `{"properties": {"capacity": {"properties": {"connections": {}, "idle": {"type": "string"}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := known.objectSchema(values)
	if err != nil {
		t.Fatal(err)
	}
	capacity := schema["properties"].(map[string]any)["capacity"].(map[string]any)
	properties := capacity["properties"].(map[string]any)
	if capacity["additionalProperties"] != false || properties["idle"] == nil {
		t.Errorf("the section is %v", capacity)
	}
	if minimum := properties["connections"].(map[string]any)["minimum"]; minimum != 1.0 {
		t.Errorf("the chart's own minimum is %v", minimum)
	}
}

func TestAlertsWithoutAdviceAreNamed(t *testing.T) {
	err := expectAdvice([]alertRule{
		{Alert: "A", Expr: "a > 1", Annotations: map[string]string{"summary": "s", "description": "d"}},
		{Expr: "recorded"},
		{Alert: "C", Expr: "c > 1", Annotations: map[string]string{"summary": "s"}},
	})
	if err == nil || err.Error() != "alert C lacks a summary or a description" {
		t.Fatalf("the fault is %v", err)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
