// Proof that the cluster does what tests need from it, and leaves nothing behind: `make cluster-test`.
package selftest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestClusterCarriesWorkloads(t *testing.T) {
	m := newMachine(t, "test")
	before := sysctls()
	steps := []struct {
		name string
		run  func(machine, *testing.T)
	}{
		{"up", func(m machine, t *testing.T) { t.Log(m.node(t, "up")) }},
		{"second_up_is_refused", secondUpIsRefused},
		{"image_from_scratch", func(m machine, t *testing.T) { m.node(t, "image", m.program("echo"), "localhost/echo:1") }},
		{"deployment_of_two", deploymentOfTwo},
		{"service_from_host_and_pod", serviceFromHostAndPod},
		{"load_balancer_from_client", loadBalancerFromClient},
		{"volume_survives_kill", volumeSurvivesKill},
		{"rolling_restart_without_errors", rollingRestart},
		{"exec_and_logs", execAndLogs},
		{"killed_service_is_started_again", killedService},
		{"traces_are_found_while_it_runs", tracesAreFound},
		{"down", func(m machine, t *testing.T) { t.Log(m.node(t, "down")) }},
		{"nothing_left", func(m machine, t *testing.T) { m.expectNothingLeft(t) }},
	}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.run(m, t) }) {
			t.Fatalf("the steps after %s need it", step.name)
		}
	}
	if after := sysctls(); after != before {
		t.Errorf("values of the machine have changed: %s, before %s", after, before)
	}
}

func secondUpIsRefused(m machine, t *testing.T) {
	_, err := try(m.program("node"), m.arguments("up")...)
	if err == nil || !strings.Contains(err.Error(), "is up already") {
		t.Fatalf("a second cluster of the same name: %v", err)
	}
}

func deploymentOfTwo(m machine, t *testing.T) {
	m.kubectl(t, "apply -f testdata/deployment.yaml")
	m.kubectl(t, "rollout status deployment/echo --timeout=120s")
	if ready := m.kubectl(t, "get deployment echo -o jsonpath={.status.readyReplicas}"); ready != "2" {
		t.Fatalf("%s replicas are ready", ready)
	}
}

// serviceFromHostAndPod: each of the two pods is reached through the Service's address.
func serviceFromHostAndPod(m machine, t *testing.T) {
	address := m.kubectl(t, "get service echo -o jsonpath={.spec.clusterIP}")
	m.expectBothPods(t, func() (string, error) { return m.tryEcho(m.name(), "http://"+address+"/") })
	pod := m.kubectl(t, "get pods -l app=echo -o jsonpath={.items[0].status.podIP}")
	through := "http://" + pod + ":8080/fetch?url=http://" + address + "/"
	m.expectBothPods(t, func() (string, error) { return m.tryEcho(m.name(), through) })
}

func (m machine) tryEcho(network, url string) (string, error) {
	return try("nsenter", "--net=/run/netns/"+network, "--", m.program("echo"), "get", url)
}

func (m machine) expectBothPods(t *testing.T, ask func() (string, error)) {
	t.Helper()
	seen := map[string]bool{}
	eventually(t, func() error {
		body, err := ask()
		if err != nil {
			return err
		}
		var pod, caller string
		if _, err := fmt.Sscanf(body, "pod %s caller %s", &pod, &caller); err != nil {
			return fmt.Errorf("%q: %w", body, err)
		}
		seen[pod] = true
		if len(seen) < 2 {
			return fmt.Errorf("only %v responded", seen)
		}
		return nil
	})
}

// loadBalancerFromClient: a client outside reaches the address, and the pod sees the client's own address when the
// Service keeps traffic local.
func loadBalancerFromClient(m machine, t *testing.T) {
	client := m.node(t, "client", "one")
	m.expectBothPods(t, func() (string, error) { return m.tryEcho(client, m.balancerURL(t)) })
	patch := `{"spec":{"externalTrafficPolicy":"Local"}}`
	m.node(t, "kubectl", "patch", "service", "echo", "--patch", patch)
	eventually(t, func() error {
		body, err := m.tryEcho(client, m.balancerURL(t))
		if err == nil && !strings.Contains(body, "caller 10.99.") {
			err = fmt.Errorf("the pod sees another address: %s", body)
		}
		return err
	})
}

func (m machine) balancerURL(t *testing.T) string {
	t.Helper()
	var address string
	eventually(t, func() error {
		address = m.kubectl(t, "get service echo -o jsonpath={.status.loadBalancer.ingress[0].ip}")
		if address == "" {
			return errors.New("the Service has no address")
		}
		return nil
	})
	return "http://" + address + "/"
}

func volumeSurvivesKill(m machine, t *testing.T) {
	m.kubectl(t, "apply -f testdata/statefulset.yaml")
	m.kubectl(t, "rollout status statefulset/counter --timeout=120s")
	first := m.count(t)
	container := m.kubectl(t, "get pod counter-0 -o jsonpath={.status.containerStatuses[0].containerID}")
	m.killContainer(t, strings.TrimPrefix(container, "containerd://"))
	eventually(t, func() error {
		count := "get pod counter-0 -o jsonpath={.status.containerStatuses[0].restartCount}"
		if restarts := m.kubectl(t, count); restarts != "1" {
			return fmt.Errorf("%s restarts", restarts)
		}
		return nil
	})
	m.kubectl(t, "wait pod/counter-0 --for=condition=Ready --timeout=120s")
	if second := m.count(t); second != first+1 {
		t.Errorf("the count was %d, and is %d after a restart", first, second)
	}
}

func (m machine) count(t *testing.T) int {
	t.Helper()
	pod := m.kubectl(t, "get pod counter-0 -o jsonpath={.status.podIP}")
	number, err := strconv.Atoi(m.echo(t, m.name(), "get", "http://"+pod+":8080/count"))
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// killContainer sends SIGKILL to the process of a container, by its id in the cluster's PID namespace.
func (m machine) killContainer(t *testing.T, container string) {
	t.Helper()
	for line := range strings.Lines(m.node(t, "enter", "ctr", "tasks", "list")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == container {
			m.node(t, "enter", "kill", "-KILL", fields[1])
			return
		}
	}
	t.Fatalf("containerd has no task %s", container)
}

// rollingRestart: both pods are replaced while a client opens new connections, and no request fails.
func rollingRestart(m machine, t *testing.T) {
	old := m.kubectl(t, "get pods -l app=echo -o name")
	client := m.node(t, "client", "two")
	url := m.balancerURL(t)
	load := exec.Command("nsenter", "--net=/run/netns/"+client, "--", m.program("echo"), "load", url, "20")
	var report strings.Builder
	load.Stdout, load.Stderr = &report, &report
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	m.kubectl(t, "rollout restart deployment/echo")
	m.kubectl(t, "rollout status deployment/echo --timeout=120s")
	err := load.Wait()
	t.Log(strings.TrimSpace(report.String()))
	if err != nil {
		t.Error(err)
	}
	for _, pod := range strings.Fields(m.kubectl(t, "get pods -l app=echo -o name")) {
		if strings.Contains(old, pod) && !m.isEnding(t, pod) {
			t.Errorf("%s was not replaced", pod)
		}
	}
}

func (m machine) isEnding(t *testing.T, pod string) bool {
	t.Helper()
	return m.kubectl(t, "get "+pod+" --ignore-not-found -o jsonpath={.metadata.deletionTimestamp}") != ""
}

func execAndLogs(m machine, t *testing.T) {
	pod := m.kubectl(t, "get pod counter-0 -o name")
	if log := m.kubectl(t, "logs "+pod); !strings.Contains(log, "listening") {
		t.Errorf("the log is %q", log)
	}
	body := m.kubectl(t, "exec "+pod+" -- /program get http://127.0.0.1:8080/")
	if !strings.Contains(body, "pod counter-0") {
		t.Errorf("the body is %q", body)
	}
}

// killedService: the API server is killed, and is ready again.
func killedService(m machine, t *testing.T) {
	old := m.processOf(t, "kube-apiserver")
	m.node(t, "enter", "kill", "-KILL", old)
	eventually(t, func() error {
		if _, err := try(m.program("node"), m.arguments("kubectl", "get", "--raw", "/readyz")...); err != nil {
			return err
		}
		if m.processOf(t, "kube-apiserver") == old {
			return errors.New("it has not ended")
		}
		return nil
	})
}

func (m machine) processOf(t *testing.T, program string) string {
	t.Helper()
	for line := range strings.Lines(m.node(t, "enter", "ps", "axo", "pid,args")) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == program {
			return fields[0]
		}
	}
	return ""
}

// tracesAreFound: the search for leftovers would find each kind.
func tracesAreFound(m machine, t *testing.T) {
	for kind, found := range m.traces() {
		if len(found) == 0 {
			t.Errorf("no %s of a running cluster were found", kind)
		}
	}
}

// A program that ends at once: `up` fails with its log's end, and everything is removed.
func TestFailedStartLeavesNothing(t *testing.T) {
	m := newMachine(t, "fail")
	programs := m.target
	m.target = filepath.Join(programs, "f"+strconv.Itoa(os.Getpid()))
	t.Cleanup(func() { os.RemoveAll(m.target) })
	if err := os.MkdirAll(filepath.Join(m.target, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node", "kube", "pause", "containerd-shim-runc-v2", "ctr"} {
		os.Symlink(filepath.Join(programs, "bin", name), m.program(name))
	}
	script := "#!/bin/sh\necho 'no containerd today'\nsleep 1\nexit 3\n"
	os.WriteFile(m.program("containerd"), []byte(script), 0o755)
	_, err := try(m.program("node"), m.arguments("up")...)
	if err == nil || !strings.Contains(err.Error(), "no containerd today") {
		t.Errorf("`up` with a broken program: %v", err)
	}
	m.expectNothingLeft(t)
}

// `up` is killed while the cluster starts: the guard removes everything without being asked.
func TestKilledStartLeavesNothing(t *testing.T) {
	m := newMachine(t, "kill")
	command := exec.Command(m.program("node"), m.arguments("up")...)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := os.Stat(filepath.Join(m.folder(), "logs", "kube-apiserver.log"))
		return err
	})
	command.Process.Kill()
	command.Wait()
	eventually(t, func() error {
		if _, err := os.Stat(m.folder()); err == nil {
			return errors.New("the run folder is still there")
		}
		return nil
	})
	time.Sleep(100 * time.Millisecond) // the guard's last step is to end
	m.expectNothingLeft(t)
}

// The guard itself is killed: the kernel ends all processes, and `down` removes the rest.
func TestKilledGuardLeavesNothing(t *testing.T) {
	m := newMachine(t, "guard")
	m.node(t, "up")
	m.node(t, "client", "one")
	text, err := os.ReadFile(filepath.Join(m.folder(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	var guard int
	if _, err := fmt.Sscan(string(text), &guard); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(guard, syscall.SIGKILL)
	t.Log(m.node(t, "down"))
	m.expectNothingLeft(t)
}
