package selftest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds each wait for the cluster; on a busy machine pods are slow.
const patience = 2 * time.Minute

// A machine is the cluster under test: a name that no other has, and the folder of its programs and state.
type machine struct {
	suffix string
	target string
	began  time.Time
}

func newMachine(t *testing.T, mark string) machine {
	t.Helper()
	target := os.Getenv("CLUSTER_TARGET")
	if target == "" {
		t.Fatal("started by `make cluster-test`, which sets CLUSTER_TARGET")
	}
	m := machine{suffix: fmt.Sprintf("%s%d", mark, os.Getpid()), target: target, began: time.Now()}
	t.Cleanup(func() { exec.Command(m.program("node"), m.arguments("down")...).Run() })
	return m
}

func (m machine) name() string               { return "kc-" + m.suffix }
func (m machine) folder() string             { return filepath.Join(m.target, "run", m.name()) }
func (m machine) program(name string) string { return filepath.Join(m.target, "bin", name) }
func (m machine) arguments(a ...string) []string {
	return append([]string{"--target", m.target, "--name", m.suffix}, a...)
}

func (m machine) node(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, m.program("node"), m.arguments(args...)...)
}

func (m machine) kubectl(t *testing.T, line string) string {
	t.Helper()
	return m.node(t, append([]string{"kubectl"}, strings.Fields(line)...)...)
}

// echo runs the echo program as a client in a network namespace.
func (m machine) echo(t *testing.T, network string, args ...string) string {
	t.Helper()
	line := append([]string{"--net=/run/netns/" + network, "--", m.program("echo")}, args...)
	return output(t, "nsenter", line...)
}

// output fails the test with all that the command wrote. It returns the standard output.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	text, err := try(program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", filepath.Base(program), strings.Join(args, " "), err)
	}
	return text
}

func try(program string, args ...string) (string, error) {
	var out, problems bytes.Buffer
	command := exec.Command(program, args...)
	command.Stdout, command.Stderr = &out, &problems
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s%s", err, out.String(), problems.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// eventually polls until the condition is nil, and fails the test with its last error.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %s: %v", patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
