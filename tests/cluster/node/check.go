package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// leastMemory and leastDisk are what a cluster with some pods uses (about 1.2 GiB each), and some space.
const (
	leastMemory = 2 << 30
	leastDisk   = 3 << 30
)

// A requirement is a property of the machine, with a hint for machines that lack it.
type requirement struct {
	test func(run) error
	hint string
}

var requirements = []requirement{
	{testSystem, "The programs run on Linux on amd64 or arm64 only."},
	{testRoot, "Run it as root: namespaces, mounts and cgroups need it. In a container: a privileged one."},
	{testFolder, "Choose another folder: CARGO_TARGET_DIR=/var/tmp/tallygate."},
	{testPrograms, "On Debian: scripts/need runc cni nft buildah ip nsenter. Elsewhere install them by hand."},
	{testCgroups, "Mount the cgroups writable; in a container: --privileged --cgroupns=host, or a virtual machine."},
	{testMemory, "End other programs, or use a larger machine."},
	{testDisk, "Free some space, or choose another file system: CARGO_TARGET_DIR=/folder."},
	{testKmsg, "The kubelet reads the kernel's messages about memory there: mknod /dev/kmsg c 1 11."},
}

// probes are tried in disposable namespaces, so that nothing is left. Each needs the ones before.
var probes = []requirement{
	{probeProc, "Mounts must be permitted: CAP_SYS_ADMIN, and no seccomp or AppArmor profile that forbids mount."},
	{probeOverlay, "Images need overlayfs: modprobe overlay. It does not work on top of another overlayfs: choose a " +
		"folder on a disk with CARGO_TARGET_DIR."},
	{probeBridge, "The network of pods needs CAP_NET_ADMIN and the modules bridge and veth: modprobe bridge veth."},
	{probeBridgeFilter, "Services need bridged packets to pass the rules: modprobe br_netfilter."},
	{probeNftables, "kube-proxy needs nftables with NAT: modprobe nf_tables nft_chain_nat nft_masq."},
}

// check says all that this machine lacks, one sentence and one hint each.
func check(r run) error {
	var problems []string
	for _, required := range requirements {
		if err := required.test(r); err != nil {
			problems = append(problems, fmt.Sprintf("%v\n    %s", err, required.hint))
		}
	}
	if len(problems) == 0 {
		problems = r.runProbes()
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("this machine cannot run the cluster:\n  %s", strings.Join(problems, "\n  "))
}

// runProbes starts this program in new namespaces. The kernel removes all traces of the probes with them.
func (r run) runProbes() []string {
	line := r.self("probe")
	command := exec.Command(line[0], line[1:]...)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
	}
	output, err := command.CombinedOutput()
	if err == nil {
		return nil
	}
	if len(output) == 0 {
		return []string{fmt.Sprintf("New namespaces are refused: %v\n    %s", err, requirements[1].hint)}
	}
	return []string{strings.TrimSpace(string(output))}
}

// probe is the process in the new namespaces.
func probe(r run, _ []string) error {
	folder, err := os.MkdirTemp(r.target, "probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	r.folder = folder
	for _, required := range probes {
		if err := required.test(r); err != nil {
			fmt.Printf("%v\n    %s\n", err, required.hint)
			os.RemoveAll(folder)
			os.Exit(1)
		}
	}
	return nil
}

func testSystem(run) error {
	if runtime.GOOS != "linux" || (runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64") {
		return fmt.Errorf("This is %s on %s.", runtime.GOOS, runtime.GOARCH)
	}
	return nil
}

func testRoot(run) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("You are user %d, not root.", os.Geteuid())
	}
	return nil
}

// testFolder: the path becomes part of a socket's address and of mount options.
func testFolder(r run) error {
	if length := len(r.containerdSocket()); length > longestSocket {
		return fmt.Errorf("The path of containerd's socket has %d bytes, and at most %d are possible: %s",
			length, longestSocket, r.containerdSocket())
	}
	if strings.ContainsAny(r.target, ":,\\\"' ") {
		return fmt.Errorf("The folder %s has a character that mount options cannot have.", r.target)
	}
	if err := os.MkdirAll(r.target, 0o755); err != nil {
		return fmt.Errorf("The folder of the cluster cannot be made: %w.", err)
	}
	return nil
}

func testPrograms(run) error {
	var missing []string
	for _, program := range []string{"runc", "nft", "buildah", "ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
		if _, err := os.Stat(filepath.Join(networkPlugins, plugin)); err != nil {
			missing = append(missing, filepath.Join(networkPlugins, plugin))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("Programs are missing: %s.", strings.Join(missing, ", "))
	}
	return nil
}

func testCgroups(r run) error {
	roots := cgroupRoots()
	if len(roots) == 0 {
		return fmt.Errorf("There are no cgroups in %s.", cgroupMount)
	}
	if roots[0] == cgroupMount {
		text, _ := os.ReadFile(filepath.Join(cgroupMount, "cgroup.controllers"))
		return lacking(strings.Fields(string(text)))
	}
	var controllers []string
	for _, root := range roots {
		controllers = append(controllers, strings.Split(filepath.Base(root), ",")...)
	}
	if err := lacking(controllers); err != nil {
		return err
	}
	for _, root := range roots {
		trial := filepath.Join(root, r.name+"-trial")
		if err := os.Mkdir(trial, 0o755); err != nil {
			return fmt.Errorf("Cgroups cannot be made: %w.", err)
		}
		os.Remove(trial)
	}
	return nil
}

func lacking(controllers []string) error {
	var missing []string
	for _, wanted := range []string{"cpu", "cpuset", "memory", "pids"} {
		found := false
		for _, controller := range controllers {
			found = found || controller == wanted
		}
		if !found {
			missing = append(missing, wanted)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("Cgroup controllers are missing: %s.", strings.Join(missing, ", "))
	}
	return nil
}

func testMemory(run) error {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return errors.New("/proc/meminfo cannot be read.")
	}
	for line := range strings.Lines(string(text)) {
		var available int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &available); n == 1 && available<<10 < leastMemory {
			return fmt.Errorf("%d MiB of memory are available; %d MiB are needed.", available>>10, leastMemory>>20)
		}
	}
	return nil
}

func testDisk(r run) error {
	folder := r.target
	for _, err := os.Stat(folder); err != nil && folder != "/"; _, err = os.Stat(folder) {
		folder = filepath.Dir(folder)
	}
	var status syscall.Statfs_t
	if err := syscall.Statfs(folder, &status); err != nil {
		return fmt.Errorf("The space in %s cannot be read: %w.", folder, err)
	}
	if free := int64(status.Bavail) * status.Bsize; free < leastDisk {
		return fmt.Errorf("%s has %d MiB of space; %d MiB are needed.", folder, free>>20, int64(leastDisk)>>20)
	}
	return nil
}

func testKmsg(run) error {
	file, err := os.Open("/dev/kmsg")
	if err != nil {
		return fmt.Errorf("/dev/kmsg cannot be opened: %w.", err)
	}
	return file.Close()
}

func probeProc(run) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("The propagation of mounts cannot be changed: %w.", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc cannot be mounted: %w.", err)
	}
	return nil
}

func probeOverlay(r run) error {
	for _, part := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(r.path(part), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", r.folder)
	if err := syscall.Mount("overlay", r.path("merged"), "overlay", 0, options); err != nil {
		return fmt.Errorf("overlayfs cannot be mounted in %s: %w.", r.target, err)
	}
	return syscall.Unmount(r.path("merged"), 0)
}

func probeBridge(run) error {
	for _, line := range []string{
		"link add br0 type bridge",
		"link add trial0 type veth peer name trial1",
		"link set trial0 master br0",
	} {
		if err := runQuietly("ip", strings.Fields(line)...); err != nil {
			return fmt.Errorf("No bridge with a veth pair: %w.", err)
		}
	}
	return nil
}

// probeBridgeFilter: without it, responses between pods of a bridge keep the pod's address instead of the Service's.
func probeBridgeFilter(run) error {
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := os.Stat(file); err != nil {
		exec.Command("modprobe", "br_netfilter").Run()
	}
	value, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(value)) != "1" {
		err = os.WriteFile(file, []byte("1"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("Bridged packets do not pass the rules: %w.", err)
	}
	return nil
}

func probeNftables(run) error {
	const rules = `table ip trial {
	chain before { type nat hook prerouting priority dstnat; dnat to 10.0.0.1; }
	chain after { type nat hook postrouting priority srcnat; masquerade; }
}`
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nftables does not work: %w: %s", err, strings.TrimSpace(string(output)))
	}
	return nil
}
