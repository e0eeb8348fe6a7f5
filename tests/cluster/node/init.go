package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// shielded folders are written to by the programs at fixed places: sockets, links to logs, caches of the network.
// In the cluster's mount namespace they are copies on write, and /run is empty.
var shielded = []string{"/var/lib", "/var/log", "/opt"}

// The kubelet sets these values, and they belong to the whole machine. It leaves values alone that are as it wants
// them, so it is shown files with its own values.
var kubeletSysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// initialize is process 1 of the cluster. When it ends, the kernel kills all processes of the cluster.
func initialize(r run, _ []string) error {
	if os.Getpid() != 1 {
		return errors.New("`init` is started by `guard`")
	}
	if err := r.shieldMachine(); err != nil {
		return err
	}
	command := r.self("supervise")
	files := []uintptr{0, 1, 2}
	supervisor, err := syscall.ForkExec(command[0], command, &syscall.ProcAttr{Env: os.Environ(), Files: files})
	if err != nil {
		return err
	}
	return reapUntil(supervisor)
}

// reapUntil waits for all children: also for shims of containerd, whose parents have ended.
func reapUntil(supervisor int) error {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil && err != syscall.EINTR {
			return err
		}
		if pid == supervisor {
			return errors.New("the supervisor has ended, and the cluster with it")
		}
	}
}

// shieldMachine arranges the mounts. None of them is seen outside: the mount namespace is a slave of the machine's.
func (r run) shieldMachine() error {
	// Shared again among the cluster's own: volumes with mount propagation need it.
	for _, flag := range []uintptr{syscall.MS_SLAVE, syscall.MS_SHARED} {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("propagation of mounts: %w", err)
		}
	}
	target, err := os.Open(r.target)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount of /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount of /run: %w", err)
	}
	covers := strings.HasPrefix(r.target, "/run/")
	for _, folder := range shielded {
		if err := r.copyOnWrite(folder); err != nil {
			return err
		}
		covers = covers || strings.HasPrefix(r.target, folder+"/")
	}
	if covers {
		if err := bringBack(target, r.target); err != nil {
			return err
		}
	}
	return r.showSysctls()
}

func (r run) copyOnWrite(folder string) error {
	if info, err := os.Lstat(folder); err != nil || !info.IsDir() {
		return nil
	}
	base := r.path("shield", filepath.Base(folder))
	for _, part := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(base, part), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", folder, base, base)
	if err := syscall.Mount("overlay", folder, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay over %s: %w", folder, err)
	}
	return nil
}

// bringBack mounts the folder of the cluster over its copy.
func bringBack(folder *os.File, path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return syscall.Mount(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), path, "", syscall.MS_BIND|syscall.MS_REC, "")
}

func (r run) showSysctls() error {
	for name, value := range kubeletSysctls {
		shown := r.path("sysctl", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(shown, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		err := syscall.Mount(shown, "/proc/sys/"+name, "", syscall.MS_BIND, "")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("bind mount over the sysctl %s: %w", name, err)
		}
	}
	return nil
}
