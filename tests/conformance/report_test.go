package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	reported "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/yaml"
)

// printReport prints each profile of a report: counts, the suite's own summary, and the names of what failed. If there
// is a log of the run, the reasons come with the names.
func printReport(arguments []string) error {
	if len(arguments) != 1 && len(arguments) != 2 {
		return errors.New("usage: summary REPORT [LOG]")
	}
	text, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	var report reported.ConformanceReport
	if err := yaml.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("%s is not a report: %w", arguments[0], err)
	}
	fmt.Fprintf(terminal, "\nGateway API %s, channel %s, %s %s\n",
		report.GatewayAPIVersion, report.GatewayAPIChannel, report.Project, report.Version)
	if len(report.ProfileReports) == 0 {
		fmt.Fprintln(terminal, "no test ran: the setup failed")
	}
	slices.SortFunc(report.ProfileReports, func(a, b reported.ProfileReport) int { return cmp.Compare(a.Name, b.Name) })
	var failed []string
	for _, profile := range report.ProfileReports {
		printProfile(profile)
		failed = append(failed, profile.Core.FailedTests...)
		if profile.Extended != nil {
			failed = append(failed, profile.Extended.FailedTests...)
		}
	}
	if len(arguments) == 2 {
		printReasons(failed, reasonsIn(arguments[1]))
	}
	return nil
}

func printReasons(failed []string, reasons map[string][]string) {
	slices.Sort(failed)
	for _, name := range slices.Compact(failed) {
		fmt.Fprintf(terminal, "\n%s\n", name)
		for _, reason := range someOf(reasons[name]) {
			fmt.Fprintf(terminal, "  %s\n", reason)
		}
	}
}

func printProfile(profile reported.ProfileReport) {
	fmt.Fprintf(terminal, "\n%s: %s\n", profile.Name, profile.Summary)
	printStatus("core", profile.Core)
	if profile.Extended == nil {
		return
	}
	printStatus("extended", profile.Extended.Status)
	supported, unsupported := profile.Extended.SupportedFeatures, profile.Extended.UnsupportedFeatures
	fmt.Fprintf(terminal, "  extended features: %d of %d\n", len(supported), len(supported)+len(unsupported))
	if len(unsupported) > 0 {
		fmt.Fprintf(terminal, "  not supported: %s\n", strings.Join(unsupported, " "))
	}
}

func printStatus(level string, status reported.Status) {
	fmt.Fprintf(terminal, "  %-9s %3d passed, %d failed, %d skipped\n", level+":",
		status.Passed, status.Failed, status.Skipped)
	for _, name := range status.FailedTests {
		fmt.Fprintf(terminal, "    FAIL %s\n", name)
	}
}
