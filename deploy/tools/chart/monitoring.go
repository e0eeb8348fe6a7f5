package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// metricName finds metrics of ours in an expression. Histograms are written with the suffix of one of their series.
var metricName = regexp.MustCompile(`tallygate_[a-z0-9_]+`)

var histogramSuffix = regexp.MustCompile(`_(bucket|sum|count)$`)

type alertRule struct {
	Alert, Expr string
	Annotations map[string]string
}

// checkMonitoring: the alerts and the dashboards name only metrics of docs/metrics.md, and each alert says what to do. The tests
// `alert_rules` and `dashboards` of the program check the rest.
func checkMonitoring(metricsFile, alertsFile string, dashboardFiles []string) error {
	page, err := os.ReadFile(metricsFile)
	if err != nil {
		return err
	}
	alerts, err := readAlerts(alertsFile)
	if err != nil {
		return err
	}
	faults := []error{expectAdvice(alerts)}
	for _, file := range dashboardFiles {
		dashboard, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		faults = append(faults, expectDocumented(string(page), file, string(dashboard)))
	}
	return errors.Join(faults...)
}

func readAlerts(file string) ([]alertRule, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var document struct {
		Groups []struct{ Rules []alertRule }
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var alerts []alertRule
	for _, group := range document.Groups {
		alerts = append(alerts, group.Rules...)
	}
	return alerts, nil
}

// expectAdvice: each alert has a summary and a description. Rules that record have neither.
func expectAdvice(alerts []alertRule) error {
	var faults []error
	for _, alert := range alerts {
		if alert.Alert != "" && (alert.Annotations["summary"] == "" || alert.Annotations["description"] == "") {
			faults = append(faults, fmt.Errorf("alert %s lacks a summary or a description", alert.Alert))
		}
	}
	return errors.Join(faults...)
}

func expectDocumented(page, file, text string) error {
	var faults []error
	seen := map[string]bool{}
	for _, name := range metricName.FindAllString(text, -1) {
		plain := histogramSuffix.ReplaceAllString(name, "")
		isKnown := strings.Contains(page, "`"+name+"`") || strings.Contains(page, "`"+plain+"`")
		if !isKnown && !seen[name] {
			faults = append(faults, fmt.Errorf("%s: %s is not on the page of the metrics", file, name))
		}
		seen[name] = true
	}
	if len(seen) == 0 {
		faults = append(faults, fmt.Errorf("%s shows no metric", file))
	}
	return errors.Join(faults...)
}
