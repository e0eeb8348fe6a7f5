package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// readyLine is the supervisor's last line of a start.
	readyLine = "ready"
	// keepWord is what `up` sends when the node is Ready: from then on the cluster outlives `up`.
	keepWord = "keep"
	// sweepLimit is how long the kernel may take to let go of processes and cgroups that have ended.
	sweepLimit = 10 * time.Second
)

// guard lives outside the namespaces, from the start of the cluster to its end. It holds the lock of the run folder.
func guard(r run, _ []string) error {
	// The signal at the parent's death is tied to the thread that started the child.
	runtime.LockOSThread()
	lock, err := r.lockOrRefuse()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.WriteFile(r.lockFile(), processOf(os.Getpid()).text(), 0o644); err != nil {
		return err
	}
	err = r.keepUp()
	return errors.Join(err, r.sweep())
}

// lockOrRefuse tries more than once: a process that asks whether the cluster is up holds the lock for a moment.
func (r run) lockOrRefuse() (*os.File, error) {
	for range 10 {
		if lock, err := r.lock(); lock != nil || err != nil {
			return lock, err
		}
		time.Sleep(pollInterval)
	}
	return nil, fmt.Errorf("%s is up already", r.name)
}

// keepUp returns nil when it was asked to end the cluster, and an error when the cluster ended by itself.
func (r run) keepUp() error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	orphaned := make(chan struct{})
	go func() {
		if text, _ := io.ReadAll(os.Stdin); !strings.Contains(string(text), keepWord) {
			close(orphaned)
		}
	}()
	child, err := r.startInit()
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("the cluster ended: %w", err)
	case <-orphaned:
		fmt.Println("`up` has ended before the node was Ready")
	case <-asked:
	}
	// Process 1 of a PID namespace takes all others with it.
	child.Process.Kill()
	<-ended
	return nil
}

func (r run) startInit() (*exec.Cmd, error) {
	for _, step := range []func() error{r.writeConfigs, r.writePki, r.makeCgroups, r.makeNetwork} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	// Not `ip netns exec`: it mounts another /sys, without the cgroups.
	command := exec.Command("nsenter", append([]string{"--net=" + r.networkFile(), "--"}, r.self("init")...)...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	return command, os.WriteFile(r.initFile(), processOf(command.Process.Pid).text(), 0o644)
}

// sweep removes what a cluster leaves in the kernel and on the disk. It is called with the lock held, and is complete
// also after a cluster whose guard was killed.
func (r run) sweep() error {
	return errors.Join(r.endInit(), r.removeNetworks(), r.removeCgroups(), r.removeFolder())
}

// removeFolder removes the lock last: as long as it is there, others wait.
func (r run) removeFolder() error {
	entries, _ := os.ReadDir(r.folder)
	var problems []error
	for _, entry := range entries {
		if path := r.path(entry.Name()); path != r.lockFile() {
			problems = append(problems, os.RemoveAll(path))
		}
	}
	return errors.Join(append(problems, os.RemoveAll(r.folder))...)
}

// endInit waits until process 1 has ended: it does so after all others of its namespace.
func (r run) endInit() error {
	process, err := processIn(r.initFile())
	if err != nil {
		return nil // never started
	}
	end := time.Now().Add(sweepLimit)
	for process.lives() {
		if time.Now().After(end) {
			return fmt.Errorf("process %d does not end within %s", process.pid, sweepLimit)
		}
		syscall.Kill(process.pid, syscall.SIGKILL)
		time.Sleep(pollInterval)
	}
	return nil
}

// makeNetwork makes the named network namespace. The first one on a machine also makes a mount of ip's folder.
func (r run) makeNetwork() error {
	if _, err := os.Stat(networkFolder); err != nil {
		if err := os.WriteFile(r.firstNetworkMark(), nil, 0o644); err != nil {
			return err
		}
	}
	return runQuietly("ip", "netns", "add", r.name)
}

// networks are the namespaces of the cluster and of its clients.
func (r run) networks() []string {
	var names []string
	found, _ := filepath.Glob(r.networkFile() + "*")
	for _, path := range found {
		if name := filepath.Base(path); name == r.name || strings.HasPrefix(name, r.name+clientMark) {
			names = append(names, name)
		}
	}
	return names
}

func endProcesses(network string) error {
	for end := time.Now().Add(sweepLimit); time.Now().Before(end); time.Sleep(pollInterval) {
		pids, err := exec.Command("ip", "netns", "pids", network).Output()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, word := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(word); err == nil && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	return fmt.Errorf("processes in the network namespace %s do not end", network)
}

// removeNetworks also ends processes that were started in these namespaces by hand: they have no network any more.
func (r run) removeNetworks() error {
	var problems []error
	for _, name := range r.networks() {
		problems = append(problems, endProcesses(name), runQuietly("ip", "netns", "del", name))
	}
	if _, err := os.Stat(r.firstNetworkMark()); err == nil {
		// Both are refused if other namespaces have been made since.
		syscall.Unmount(networkFolder, 0)
		os.Remove(networkFolder)
	}
	return errors.Join(problems...)
}
