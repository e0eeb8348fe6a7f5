package selftest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// kubeletSysctls are the values of the machine that a kubelet changes where it is not prevented.
var kubeletSysctls = []string{
	"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
}

func sysctls() string {
	var values []string
	for _, name := range kubeletSysctls {
		value, _ := os.ReadFile("/proc/sys/" + name)
		values = append(values, name+"="+strings.TrimSpace(string(value)))
	}
	return strings.Join(values, " ")
}

// traces are what a cluster has in the kernel and on the disk.
func (m machine) traces() map[string][]string {
	return map[string][]string{
		"processes": m.processes(),
		"mounts":    m.mounts(),
		"networks":  m.networks(),
		"cgroups":   m.cgroups(),
		"files":     m.files(),
	}
}

func (m machine) expectNothingLeft(t *testing.T) {
	t.Helper()
	for kind, found := range m.traces() {
		for _, trace := range found {
			t.Errorf("left behind, %s: %s", kind, trace)
		}
	}
}

func (m machine) mentions(text []byte) bool {
	return strings.Contains(string(text), m.folder()) || strings.Contains(string(text), m.name()) ||
		strings.Contains(string(text), "--name\x00"+m.suffix+"\x00")
}

// processes are those that mention the cluster in their arguments or their environment.
func (m machine) processes() []string {
	var found []string
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		arguments, _ := os.ReadFile(folder + "/cmdline")
		environment, _ := os.ReadFile(folder + "/environ")
		if m.mentions(arguments) || m.mentions(environment) {
			found = append(found, folder+": "+strings.ReplaceAll(string(arguments), "\x00", " "))
		}
	}
	return found
}

// mounts are looked for in the mount namespaces of all processes.
func (m machine) mounts() []string {
	var found []string
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			if m.mentions([]byte(line)) {
				found = append(found, table+": "+strings.TrimSpace(line))
			}
		}
	}
	return found
}

func (m machine) networks() []string {
	found, _ := filepath.Glob("/run/netns/" + m.name() + "*")
	return found
}

func (m machine) cgroups() []string {
	var found []string
	filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.Contains(entry.Name(), m.name()) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

var nameOfCluster = regexp.MustCompile(`kube|containerd|buildah|cni|runc|pods|kc-|k8s`)

// files are the run folder, and new files of the programs in folders of the machine.
func (m machine) files() []string {
	var found []string
	if _, err := os.Stat(m.folder()); err == nil {
		found = append(found, m.folder())
	}
	for _, root := range []string{"/run", "/var", "/opt", "/etc", "/tmp", m.target} {
		filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || path == filepath.Join(m.target, "bin") {
				return fs.SkipDir
			}
			info, err := entry.Info()
			if err == nil && info.ModTime().After(m.began) && nameOfCluster.MatchString(entry.Name()) {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}
