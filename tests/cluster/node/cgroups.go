package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const cgroupMount = "/sys/fs/cgroup"

// cgroupRoots are the roots of the hierarchies: one for each controller (v1), or a single one (v2).
func cgroupRoots() []string {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil {
		return []string{cgroupMount}
	}
	var roots []string
	entries, _ := os.ReadDir(cgroupMount)
	for _, entry := range entries {
		root := filepath.Join(cgroupMount, entry.Name())
		// Links such as `cpu` to `cpu,cpuacct` are the same hierarchy under another name.
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); entry.IsDir() && err == nil {
			roots = append(roots, root)
		}
	}
	return roots
}

// makeCgroups makes a cgroup in each hierarchy. The kubelet puts all pods below it, so that two clusters do not meet.
func (r run) makeCgroups() error {
	for _, root := range cgroupRoots() {
		if err := os.Mkdir(filepath.Join(root, r.name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// A new cpuset has no CPU, and takes no process until it has one.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(root, r.name, file); err != nil {
				return err
			}
		}
		delegate(root)
	}
	return nil
}

func inherit(root, name, file string) error {
	value, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return nil // another controller, or v2, where the root has no such file
	}
	return os.WriteFile(filepath.Join(root, name, file), value, 0o644)
}

// delegate lets children of a v2 root have its controllers. Where that is refused, the kubelet names the controller.
func delegate(root string) {
	text, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(text)) {
		os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
}

func (r run) removeCgroups() error {
	var problems []error
	for _, root := range cgroupRoots() {
		problems = append(problems, removeCgroup(filepath.Join(root, r.name)))
	}
	return errors.Join(problems...)
}

// removeCgroup removes a cgroup with its children. Processes that were just killed may still be in it for a moment.
func removeCgroup(folder string) error {
	end := time.Now().Add(sweepLimit)
	for {
		var folders []string
		filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return nil
		})
		for i := len(folders) - 1; i >= 0; i-- {
			os.Remove(folders[i])
		}
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the cgroup %s cannot be removed", folder)
		}
		time.Sleep(pollInterval)
	}
}
