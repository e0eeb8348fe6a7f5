package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	pollInterval = 50 * time.Millisecond
	// restartDelay keeps a program that fails at once from using up the CPU.
	restartDelay = time.Second
	// tailLines is how much of a log is shown when its program fails.
	tailLines = 25
)

// A supervisor starts services, and starts them again when they end.
type supervisor struct {
	run     run
	started time.Time
	// ended has the first service that ended before the node was Ready.
	ended chan error
	ready chan struct{}
}

// supervise is process 2 of the cluster. The output is the guard's log, which `up` shows.
func supervise(r run, _ []string) error {
	os.Setenv("TMPDIR", r.path("tmp")) // for buildah
	s := &supervisor{run: r, started: time.Now(), ended: make(chan error, 16), ready: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { cancel(<-s.ended) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	close(s.ready)
	fmt.Println(readyLine)
	select {}
}

// start brings the node up, in the order of need. Nothing waits longer than startLimit.
func (s *supervisor) start(ctx context.Context) error {
	if err := s.makeBridge(); err != nil {
		return err
	}
	s.launch(s.run.containerd())
	s.launch(s.run.etcd())
	if err := s.await(ctx, s.run.containerd()); err != nil {
		return err
	}
	pause := make(chan error, 1)
	go func() { pause <- s.run.importProgram(s.run.program("pause"), []string{pauseImage}) }()
	if err := s.await(ctx, s.run.etcd()); err != nil {
		return err
	}
	s.launch(s.run.apiServer())
	if err := s.await(ctx, s.run.apiServer()); err != nil {
		return err
	}
	for _, follower := range s.run.followers() {
		s.launch(follower)
	}
	for _, follower := range s.run.followers() {
		if err := s.await(ctx, follower); err != nil {
			return err
		}
	}
	if err := <-pause; err != nil {
		return fmt.Errorf("the image of pods' first process: %w", err)
	}
	s.say("image %s imported", pauseImage)
	return s.finish(ctx)
}

// finish adds what a bare cluster lacks: addresses for load balancers, and volumes.
func (s *supervisor) finish(ctx context.Context) error {
	api, err := s.run.newApi("admin")
	if err != nil {
		return err
	}
	if err := api.makeStorageClass(); err != nil {
		return fmt.Errorf("storage class: %w", err)
	}
	go newBalancer(api).work()
	go newProvisioner(api, s.run.path("volumes")).work()
	node := service{name: "kubelet", healthy: func(context.Context) error { return api.nodeIsReady() }}
	return s.awaitAs(ctx, node, "the node is Ready")
}

func (s *supervisor) say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// makeBridge gives the cluster's network namespace its bridge. A default route is needed: without one, packets to
// addresses of services have no route, and never reach the rules that translate them.
func (s *supervisor) makeBridge() error {
	for _, line := range []string{
		"link set lo up",
		"link add br0 type bridge",
		"addr add " + nodeAddress + "/16 dev br0",
		"link set br0 up",
		"route add default dev br0",
	} {
		if err := runQuietly("ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	for _, file := range []string{"ipv4/ip_forward", "bridge/bridge-nf-call-iptables"} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// launch starts a service, and again whenever it ends.
func (s *supervisor) launch(service service) {
	go func() {
		for {
			err := s.runOnce(service)
			select {
			case <-s.ready:
				fmt.Printf("%s ended (%v) and is started again\n", service.name, err)
			default:
				s.ended <- fmt.Errorf("%s ended: %v%s", service.name, err, s.tail(service.name))
				return
			}
			time.Sleep(restartDelay)
		}
	}()
}

func (s *supervisor) runOnce(service service) error {
	log, err := os.OpenFile(s.run.log(service.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(service.command[0], service.command[1:]...)
	command.Dir = s.run.folder
	command.Env = s.run.environment()
	command.Stdout, command.Stderr = log, log
	// A process group of its own: a Ctrl-C at a terminal reaches none of the services.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Run(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

func (s *supervisor) await(ctx context.Context, service service) error {
	return s.awaitAs(ctx, service, service.name+" is healthy")
}

func (s *supervisor) awaitAs(ctx context.Context, service service, message string) error {
	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := service.healthy(limit)
		if err == nil {
			s.say("%s", message)
			return nil
		}
		select {
		case <-time.After(pollInterval):
		case <-limit.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("not within %s: %s (%v)%s", startLimit, message, err, s.tail(service.name))
		}
	}
}

// tail is the end of a service's log, to be appended to an error.
func (s *supervisor) tail(name string) string {
	text, err := os.ReadFile(s.run.log(name))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	return fmt.Sprintf("\nThe last lines of its log:\n    %s", strings.Join(lines, "\n    "))
}

// environment puts the cluster's programs first: containerd looks for its shim in PATH.
func (r run) environment() []string {
	changed := map[string]string{
		"PATH":                 r.programs + ":" + os.Getenv("PATH"),
		"TMPDIR":               r.path("tmp"),
		"KUBECONFIG":           r.kubeconfig("admin"),
		"CONTAINERD_ADDRESS":   r.containerdSocket(),
		"CONTAINERD_NAMESPACE": "k8s.io",
	}
	var environment []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); changed[name] == "" {
			environment = append(environment, entry)
		}
	}
	for name, value := range changed {
		environment = append(environment, name+"="+value)
	}
	return environment
}

// runQuietly runs a command whose output matters only if it fails.
func runQuietly(program string, args ...string) error {
	limit, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	output, err := exec.CommandContext(limit, program, args...).CombinedOutput()
	if limit.Err() != nil {
		err = limit.Err()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
