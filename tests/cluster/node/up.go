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
	"strings"
	"syscall"
	"time"
)

// downLimit is how long `down` waits for the guard before it kills it.
const downLimit = 30 * time.Second

const usageAfterUp = `
%[1]s is up: the node %[2]s is Ready after %.1[3]f s.

  kubectl          %[7]stests/cluster/kubectl get pods -A
  its network      KUBECONFIG=%[4]s nsenter --net=%[5]s COMMAND
  its processes    %[7]stests/cluster/cluster enter COMMAND   (ctr, nft, ps see the cluster)
  an image         %[7]stests/cluster/cluster image PROGRAM localhost/NAME:1
  a client         %[7]stests/cluster/cluster client NAME
  state and logs   %[6]s
  the end          %[7]smake cluster-down

`

// up returns when the node is Ready. If it is interrupted or killed before, the guard removes everything.
func up(r run, _ []string) error {
	started := time.Now()
	endWithParent()
	if r.isUp() {
		return fmt.Errorf("%s is up already: end it with `make cluster-down`, or choose another name: CLUSTER=NAME", r.name)
	}
	if err := check(r); err != nil {
		return err
	}
	if err := r.removeOld(); err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	guard, life, output, err := r.startGuard()
	if err != nil {
		return err
	}
	defer output.Close()
	ended := make(chan error, 1)
	go func() { ended <- guard.Wait() }()
	for {
		ready := show(output)
		if ready {
			if _, err := io.WriteString(life, keepWord); err != nil {
				return err
			}
			r.sayUsage(time.Since(started))
			return life.Close()
		}
		select {
		case <-time.After(pollInterval):
		case <-ended:
			show(output)
			return errors.New("the cluster did not start; everything is removed again")
		case <-interrupted:
			life.Close()
			<-ended
			return errors.New("interrupted; everything is removed again")
		}
	}
}

// endWithParent: a `make` that is killed is as good as a Ctrl-C.
func endWithParent() {
	// The setting belongs to the thread.
	runtime.LockOSThread()
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0)
}

func (r run) sayUsage(taken time.Duration) {
	prefix := ""
	if name := os.Getenv("CLUSTER"); name != "" {
		prefix = "CLUSTER=" + name + " "
	}
	fmt.Printf(usageAfterUp, r.name, nodeName, taken.Seconds(), r.kubeconfig("admin"), r.networkFile(), r.folder, prefix)
}

// removeOld sweeps after a cluster of the same name whose guard was killed.
func (r run) removeOld() error {
	if _, err := os.Stat(r.folder); err != nil && len(r.networks()) == 0 {
		return nil
	}
	fmt.Printf("removing what an earlier %s has left\n", r.name)
	return r.sweep()
}

// startGuard returns the guard, the pipe that keeps it alive, and its output.
func (r run) startGuard() (*exec.Cmd, io.WriteCloser, *os.File, error) {
	if err := os.MkdirAll(filepath.Dir(r.log("node")), 0o755); err != nil {
		return nil, nil, nil, err
	}
	written, err := os.OpenFile(r.log("node"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, nil, err
	}
	defer written.Close()
	output, err := os.Open(r.log("node"))
	if err != nil {
		return nil, nil, nil, err
	}
	line := r.self("guard")
	guard := exec.Command(line[0], line[1:]...)
	guard.Dir = "/"
	guard.Stdout, guard.Stderr = written, written
	// A session of its own: neither Ctrl-C nor the terminal's end reaches it.
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	life, err := guard.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	return guard, life, output, guard.Start()
}

// show prints new lines of the guard's output, and says whether the line of readiness is among them.
func show(output io.Reader) bool {
	text, _ := io.ReadAll(output)
	before, after, ready := strings.Cut("\n"+string(text), "\n"+readyLine+"\n")
	fmt.Print(strings.TrimPrefix(before, "\n"))
	if ready {
		fmt.Print("\n" + after)
	}
	return ready
}

// down ends a cluster in any state: starting, running, or with a guard that was killed.
func down(r run, _ []string) error {
	started := time.Now()
	if err := r.endGuard(); err != nil {
		return err
	}
	if _, err := os.Stat(r.folder); err != nil && len(r.networks()) == 0 {
		fmt.Printf("%s is down (%.1f s)\n", r.name, time.Since(started).Seconds())
		return nil
	}
	if err := r.sweep(); err != nil {
		return err
	}
	taken := time.Since(started).Seconds()
	fmt.Printf("%s is down; its guard had been killed, its leftovers are removed (%.1f s)\n", r.name, taken)
	return nil
}

// endGuard returns when no guard holds the lock.
func (r run) endGuard() error {
	end := time.Now().Add(downLimit)
	for asked := false; r.isUp(); asked = true {
		guard, err := processIn(r.lockFile())
		if err != nil {
			time.Sleep(pollInterval) // it has the lock, and is about to write its id, or to remove the folder
			continue
		}
		late := time.Now().After(end)
		switch {
		case late:
			fmt.Printf("the guard, process %d, does not end within %s, and is killed\n", guard.pid, downLimit)
			syscall.Kill(guard.pid, syscall.SIGKILL)
		case !asked:
			syscall.Kill(guard.pid, syscall.SIGTERM)
		}
		time.Sleep(pollInterval)
	}
	return nil
}
