package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
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

// checkMonitoring compares the alerts and the dashboard with docs/metrics.md.
func checkMonitoring(metricsFile, alertsFile, dashboardFile string) error {
	page, err := os.ReadFile(metricsFile)
	if err != nil {
		return err
	}
	alerts, err := readAlerts(alertsFile)
	if err != nil {
		return err
	}
	dashboard, err := os.ReadFile(dashboardFile)
	if err != nil {
		return err
	}
	return errors.Join(
		compareAlerts(string(page), alerts),
		expectDocumented(string(page), dashboardFile, string(dashboard)),
	)
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

// compareAlerts: each expression of the page is an alert, each alert is on the page, and says what to do.
func compareAlerts(page string, alerts []alertRule) error {
	_, after, found := strings.Cut(page, "## Alerts worth having")
	parts := strings.Split(after, "```")
	if !found || len(parts) < 2 {
		return errors.New("the page of the metrics has no alerts")
	}
	wanted := strings.Split(strings.TrimSpace(strings.TrimPrefix(parts[1], "promql")), "\n")
	var faults []error
	for _, expression := range wanted {
		isIt := func(a alertRule) bool { return strings.TrimSpace(a.Expr) == expression }
		if !slices.ContainsFunc(alerts, isIt) {
			faults = append(faults, fmt.Errorf("no alert has the expression %s", expression))
		}
	}
	for _, alert := range alerts {
		if !slices.Contains(wanted, strings.TrimSpace(alert.Expr)) {
			faults = append(faults, fmt.Errorf("alert %s: its expression is not on the page of the metrics", alert.Alert))
		}
		if alert.Annotations["summary"] == "" || alert.Annotations["description"] == "" {
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
