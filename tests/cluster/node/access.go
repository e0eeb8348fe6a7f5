package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// clientMark is between a cluster's name and a client's.
const clientMark = "-client-"

// kubectl becomes kubectl, in the cluster's network.
func kubectl(r run, args []string) error {
	if !r.isUp() {
		return notUp(r)
	}
	return become(r, append([]string{"--net=" + r.networkFile(), "--", r.program("kube"), "kubectl"}, args...))
}

// enter becomes a command in all namespaces of the cluster.
func enter(r run, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: enter COMMAND...")
	}
	if !r.isUp() {
		return notUp(r)
	}
	first, err := processIn(r.initFile())
	if err != nil {
		return err
	}
	namespaces := []string{"--target=" + strconv.Itoa(first.pid), "--net", "--mount", "--pid", "--ipc", "--"}
	return become(r, append(namespaces, args...))
}

func notUp(r run) error {
	return fmt.Errorf("%s is not up: start it with `make cluster-up`", r.name)
}

// become replaces this process by nsenter, so that signals and the terminal reach the command itself.
func become(r run, args []string) error {
	program, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	return syscall.Exec(program, append([]string{"nsenter"}, args...), r.environment())
}

// client makes the network namespace of a client outside the cluster, and a link between both. Clients number N:
// the client is 10.99.N.2, and the cluster's end of the link 10.99.N.1.
func client(r run, args []string) error {
	if len(args) != 1 || !validSuffix.MatchString(args[0]) {
		return errors.New("usage: client NAME")
	}
	if !r.isUp() {
		return notUp(r)
	}
	name := r.name + clientMark + args[0]
	number, err := r.freeClient()
	if err != nil {
		return err
	}
	link := "client" + strconv.Itoa(number)
	inner := netip.AddrFrom4([4]byte{10, 99, byte(number), 1}).String()
	outer := netip.AddrFrom4([4]byte{10, 99, byte(number), 2}).String()
	for _, line := range []string{
		"netns add " + name,
		"-n " + name + " link set lo up",
		"link add " + link + " netns " + r.name + " type veth peer name eth0 netns " + name,
		"-n " + r.name + " addr add " + inner + "/24 dev " + link,
		"-n " + r.name + " link set " + link + " up",
		"-n " + name + " addr add " + outer + "/24 dev eth0",
		"-n " + name + " link set eth0 up",
		"-n " + name + " route add default via " + inner,
	} {
		if err := runQuietly("ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	fmt.Println(name)
	fmt.Fprintf(os.Stderr, "address %s; enter it with: nsenter --net=/run/netns/%s COMMAND\n", outer, name)
	return nil
}

// freeClient is the smallest number without a link.
func (r run) freeClient() (int, error) {
	output, err := exec.Command("ip", "-n", r.name, "-o", "link").Output()
	if err != nil {
		return 0, err
	}
	for number := 1; number < 255; number++ {
		if !strings.Contains(string(output), fmt.Sprintf(" client%d@", number)) {
			return number, nil
		}
	}
	return 0, errors.New("there are 254 clients")
}
