package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	upstream "sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// profiles are what Tallygate claims. The others are TCP, UDP and mesh.
var profiles = []suite.ConformanceProfile{
	suite.GatewayHTTPConformanceProfile,
	suite.GatewayGRPCConformanceProfile,
	suite.GatewayTLSConformanceProfile,
}

// belongsTo is the suite's own rule: a profile has a test if it has all of the test's features.
func belongsTo(test suite.ConformanceTest, profile suite.ConformanceProfile) bool {
	return !slices.ContainsFunc(test.Features, func(feature features.FeatureName) bool {
		return !profile.CoreFeatures.Has(feature) && !profile.ExtendedFeatures.Has(feature)
	})
}

// extras are the features that make a test extended.
func extras(test suite.ConformanceTest, profile suite.ConformanceProfile) []string {
	var names []string
	for _, feature := range test.Features {
		if !profile.CoreFeatures.Has(feature) {
			names = append(names, string(feature))
		}
	}
	return names
}

// printCatalogue prints the tests of each profile as Markdown. README.md holds a copy.
func printCatalogue([]string) error {
	listed := map[string]bool{}
	// One profile after the other, so that each test has its details where it comes first.
	for _, profile := range profiles {
		var core, extended []string
		for _, test := range sortedTests() {
			if !belongsTo(test, profile) {
				continue
			}
			line := describe(test, listed[test.ShortName])
			if more := extras(test, profile); len(more) > 0 {
				extended = append(extended, fmt.Sprintf("| %s | %s", strings.Join(more, ", "), line))
			} else {
				core = append(core, "| "+line)
			}
			listed[test.ShortName] = true
		}
		slices.Sort(extended)
		printTable(fmt.Sprintf("%s, core: %d tests", profile.Name, len(core)), "test | manifest | channel |", core)
		printTable(fmt.Sprintf("%s, extended: %d tests, %d features", profile.Name, len(extended),
			len(profile.ExtendedFeatures)), "features | test | manifest | channel |", extended)
		if bare := untested(profile); len(bare) > 0 {
			fmt.Fprintf(terminal, "Extended features without a test: %s\n\n", strings.Join(bare, ", "))
		}
	}
	return nil
}

// untested are the extended features that no test of the profile asks for.
func untested(profile suite.ConformanceProfile) []string {
	bare := profile.ExtendedFeatures.Clone()
	for _, test := range tests.ConformanceTests {
		if belongsTo(test, profile) {
			bare.Delete(test.Features...)
		}
	}
	var names []string
	for name := range bare {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// describe is a row: name, manifest, and the channel that has all features. Tests of earlier tables: the name.
func describe(test suite.ConformanceTest, isListed bool) string {
	if isListed {
		return test.ShortName + " | as above | |"
	}
	channel := "standard"
	for _, name := range test.Features {
		if features.GetFeature(name).Channel == features.FeatureChannelExperimental {
			channel = "experimental"
		}
	}
	var manifests []string
	for _, location := range test.Manifests {
		manifests = append(manifests, strings.TrimSuffix(strings.TrimPrefix(location, "tests/"), ".yaml"))
	}
	return fmt.Sprintf("%s | %s | %s |", test.ShortName, strings.Join(manifests, ", "), channel)
}

func printTable(title, heading string, rows []string) {
	fmt.Fprintf(terminal, "### %s\n\n| %s\n|%s\n", title, heading, strings.Repeat("---|", strings.Count(heading, "|")))
	for _, row := range rows {
		fmt.Fprintln(terminal, row)
	}
	fmt.Fprintln(terminal)
}

func sortedTests() []suite.ConformanceTest {
	sorted := slices.Clone(tests.ConformanceTests)
	slices.SortFunc(sorted, func(a, b suite.ConformanceTest) int { return strings.Compare(a.ShortName, b.ShortName) })
	return sorted
}

// printImages prints the images that the suite's manifests for gateways name.
func printImages([]string) error {
	var names []string
	for _, folder := range []string{"base", "tests"} {
		err := fs.WalkDir(upstream.Manifests, folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".yaml") || strings.Contains(path, "mesh") {
				return err
			}
			found, err := imagesOf(path)
			names = append(names, found...)
			return err
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return errors.New("the suite's manifests name no image: has their format changed?")
	}
	fmt.Fprintln(terminal, strings.Join(names, "\n"))
	return nil
}

func imagesOf(path string) ([]string, error) {
	file, err := upstream.Manifests.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var names []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if _, name, found := strings.Cut(lines.Text(), " image: "); found {
			names = append(names, strings.Trim(strings.TrimSpace(name), `"'`))
		}
	}
	return names, lines.Err()
}

// printClass prints the GatewayClass that the tests use.
func printClass([]string) error {
	fmt.Fprintf(terminal, `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: %s
spec:
  controllerName: %s
`, className, controllerName)
	return nil
}
