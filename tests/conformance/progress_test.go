package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// A progressBook knows which tests run, and since when. Tests run in parallel.
type progressBook struct {
	lock   sync.Mutex
	began  map[string]time.Time
	ended  int
	failed []string
}

var progress = progressBook{began: map[string]time.Time{}}

func (p *progressBook) begin(name string) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.began[name] = time.Now()
}

// end returns how long the test took. The application of its manifests is not included.
func (p *progressBook) end(name string, hasFailed bool) time.Duration {
	p.lock.Lock()
	defer p.lock.Unlock()
	began, known := p.began[name]
	delete(p.began, name)
	p.ended++
	if hasFailed {
		p.failed = append(p.failed, name)
	}
	if !known {
		return 0
	}
	return time.Since(began)
}

func (p *progressBook) describe() string {
	p.lock.Lock()
	defer p.lock.Unlock()
	var running []string
	for name, began := range p.began {
		running = append(running, fmt.Sprintf("%s (%.0f s)", name, time.Since(began).Seconds()))
	}
	slices.Sort(running)
	return fmt.Sprintf("Tests ended: %d, failed: %d [%s]. Running: %s.",
		p.ended, len(p.failed), strings.Join(p.failed, " "), strings.Join(running, ", "))
}

// followTests makes each test say that it begins. The suite itself has a hook for the end only.
func followTests() {
	for i := range tests.ConformanceTests {
		test := &tests.ConformanceTests[i]
		run := test.Test
		test.Test = func(t *testing.T, s *suite.ConformanceTestSuite) {
			progress.begin(test.ShortName)
			run(t, s)
		}
	}
}

// sayResult is the suite's hook at the end of a test.
func sayResult(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
	if t.Skipped() {
		return
	}
	result := "pass"
	if t.Failed() {
		result = "FAIL"
	}
	taken := progress.end(test.ShortName, t.Failed())
	fmt.Fprintf(terminal, "%s %6.1f s  %s\n", result, taken.Seconds(), test.ShortName)
}
