package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// All addresses of a cluster. They exist in network namespaces that `up` makes, and nowhere else.
const (
	nodeName       = "n1"
	nodeAddress    = "10.77.0.1"
	podRange       = "10.77.0.0/16"
	firstPod       = "10.77.1.1"
	lastPod        = "10.77.250.250"
	serviceRange   = "10.96.0.0/16"
	serviceAddress = "10.96.0.1" // the API server, seen from pods
	apiAddress     = nodeAddress + ":6443"
)

// Outside the range of the pods, or pods would look for these addresses with ARP.
var balancerRange = netip.MustParsePrefix("10.78.0.0/16")

// networkFolder is where ip keeps named network namespaces.
const networkFolder = "/run/netns"

// longestSocket is what sockaddr_un holds, without the final zero.
const longestSocket = 107

// A run is one cluster: its name, its folder, and the folder of its programs.
type run struct {
	target   string
	suffix   string
	name     string
	folder   string
	programs string
}

var validSuffix = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

func newRun(target, suffix string) (run, error) {
	if !validSuffix.MatchString(suffix) || strings.Contains(suffix, clientMark) {
		const rule = "at most 20 of a-z, 0-9 and -, without " + clientMark
		return run{}, fmt.Errorf("the cluster's name %q is not valid: %s", suffix, rule)
	}
	target, err := filepath.Abs(target)
	if err != nil {
		return run{}, err
	}
	name := "kc-" + suffix
	r := run{target: target, suffix: suffix, name: name}
	r.folder = filepath.Join(target, "run", name)
	r.programs = filepath.Join(target, "bin")
	return r, nil
}

func (r run) path(parts ...string) string {
	return filepath.Join(append([]string{r.folder}, parts...)...)
}

func (r run) program(name string) string    { return filepath.Join(r.programs, name) }
func (r run) log(service string) string     { return r.path("logs", service+".log") }
func (r run) kubeconfig(user string) string { return r.path("pki", user+".conf") }
func (r run) containerdSocket() string      { return r.path("containerd.sock") }
func (r run) lockFile() string              { return r.path("lock") }
func (r run) initFile() string              { return r.path("init.pid") }
func (r run) networkFile() string           { return filepath.Join(networkFolder, r.name) }
func (r run) firstNetworkMark() string      { return r.path("first-network") }

// lock takes the lock that the guard holds as long as it lives. It returns nil if another process holds it.
// The kernel releases the lock when its holder ends, however it ends.
func (r run) lock() (*os.File, error) {
	file, err := os.OpenFile(r.lockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		file.Close()
		return nil, nil
	}
	return file, err
}

// isUp says whether a guard lives.
func (r run) isUp() bool {
	if _, err := os.Stat(r.lockFile()); err != nil {
		return false
	}
	lock, err := r.lock()
	if lock != nil {
		lock.Close()
	}
	return err == nil && lock == nil
}

// self is the command line of this program for another command of the same cluster.
func (r run) self(args ...string) []string {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	return append([]string{program, "--target", r.target, "--name", r.suffix}, args...)
}
