package conformance

import (
	"cmp"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	upstream "sigs.k8s.io/gateway-api/conformance"
	reported "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// exitAtLimit is the status of a run that did not come to its end.
const exitAtLimit = 3

// quickWait bounds each wait for a state with -quick, and quickSetup the one for all pods and base Gateways.
const (
	quickWait  = 10 * time.Second
	quickSetup = 60 * time.Second
)

// Addresses for GatewayStaticAddresses: the balancer of tests/cluster gives the first one, and never the second.
const (
	usableAddress   = "10.78.200.1"
	unusableAddress = "10.79.0.1"
)

func TestConformance(t *testing.T) {
	followTests()
	go endAtLimit()
	options := upstream.DefaultOptions(t)
	complete(t, &options)
	// Registered first, so it runs after the suite has written its report.
	t.Cleanup(func() {
		if *reportFile != "" {
			if err := printReport([]string{*reportFile, *logFile}); err != nil {
				t.Error(err)
			}
		}
	})
	fmt.Fprintf(terminal, "setup: base manifests, pods, and their Gateways (at most %s)\n",
		options.TimeoutConfig.NamespacesMustBeReady)
	upstream.RunConformanceWithOptions(t, options)
}

// complete adds what the command line leaves open.
func complete(t *testing.T, options *suite.ConformanceOptions) {
	if options.GatewayClassName == "gateway-conformance" { // upstream's default
		options.GatewayClassName = className
	}
	if len(options.ConformanceProfiles) == 0 {
		options.ConformanceProfiles = profileNames()
	}
	if *reportFile != "" {
		options.ReportOutputPath = *reportFile
	}
	introduce(&options.Implementation)
	if options.UsableNetworkAddresses == nil {
		options.UsableNetworkAddresses = []gateway.GatewaySpecAddress{internetAddress(usableAddress)}
	}
	if options.UnusableNetworkAddresses == nil {
		options.UnusableNetworkAddresses = []gateway.GatewaySpecAddress{internetAddress(unusableAddress)}
	}
	if *isQuick {
		shortenWaits(&options.TimeoutConfig)
	}
	if options.RunTest != "" {
		addFeatures(t, options)
	}
	options.Hook = sayResult
}

// introduce names the project in the report, as far as upstream's flags do not: -organization, -project, -url, -version
// and -contact.
func introduce(project *reported.Implementation) {
	for _, field := range []*string{&project.Organization, &project.Project} {
		*field = cmp.Or(*field, "tallygate")
	}
	project.URL = cmp.Or(project.URL, "unpublished")
	project.Version = cmp.Or(project.Version, "unreleased")
	if len(project.Contact) == 0 {
		project.Contact = []string{"unpublished"}
	}
}

func internetAddress(value string) gateway.GatewaySpecAddress {
	kind := gateway.IPAddressType
	return gateway.GatewaySpecAddress{Type: &kind, Value: value}
}

// addFeatures: with -run-test the suite does not read the features of the GatewayClass, and then it leaves the result
// of a test with an extended feature out of the report.
func addFeatures(t *testing.T, options *suite.ConformanceOptions) {
	if len(options.SupportedFeatures) > 0 || options.EnableAllSupportedFeatures {
		return
	}
	var class gateway.GatewayClass
	name := types.NamespacedName{Name: options.GatewayClassName}
	if err := options.Client.Get(t.Context(), name, &class); err != nil {
		t.Fatalf("GatewayClass %s: %v", options.GatewayClassName, err)
	}
	for _, feature := range class.Status.SupportedFeatures {
		options.SupportedFeatures = append(options.SupportedFeatures, features.FeatureName(feature.Name))
	}
	for _, test := range tests.ConformanceTests {
		if test.ShortName == options.RunTest {
			options.SupportedFeatures = append(options.SupportedFeatures, test.Features...)
		}
	}
}

// shortenWaits leaves alone what is no wait for the controller.
func shortenWaits(waits *config.TimeoutConfig) {
	for _, wait := range []*time.Duration{
		&waits.GatewayMustHaveAddress, &waits.GatewayMustHaveCondition, &waits.GatewayStatusMustHaveListeners,
		&waits.GatewayListenersMustHaveConditions, &waits.ListenerSetMustHaveCondition,
		&waits.ListenerSetListenersMustHaveConditions, &waits.GWCMustBeAccepted, &waits.HTTPRouteMustNotHaveParents,
		&waits.HTTPRouteMustHaveCondition, &waits.TLSRouteMustHaveCondition, &waits.TCPRouteMustHaveCondition,
		&waits.UDPRouteMustHaveCondition, &waits.RouteMustHaveParents, &waits.MaxTimeToConsistency,
		&waits.LatestObservedGenerationSet, &waits.DefaultTestTimeout,
	} {
		*wait = quickWait
	}
	waits.NamespacesMustBeReady = quickSetup
}

// endAtLimit ends the program when its time is over, or at a signal. There is no report then.
func endAtLimit() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	reason := fmt.Sprintf("time limit of %s", *timeLimit)
	select {
	case <-time.After(*timeLimit):
	case received := <-signals:
		reason = received.String()
	}
	fmt.Fprintf(terminal, "\nended: %s. No report. %s\n", reason, progress.describe())
	os.Exit(exitAtLimit)
}

func profileNames() []suite.ConformanceProfileName {
	var names []suite.ConformanceProfileName
	for _, profile := range profiles {
		names = append(names, profile.Name)
	}
	return slices.Clip(names)
}
