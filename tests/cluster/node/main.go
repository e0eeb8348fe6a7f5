// A Kubernetes cluster of one node, for tests: starts it, looks after it, and ends it.
//
//	up          this process: checks the machine, starts the guard, shows progress, ends when the node is Ready
//	guard       outside the namespaces: makes and removes what the kernel and the disk hold for the cluster
//	init        process 1 of the cluster's PID and mount namespaces: shields the machine's files, reaps orphans
//	supervise   process 2: starts the programs in order, and again if one ends
//
// Guarantees:
//   - All processes, pods included, live in one PID namespace. They end with its process 1.
//   - Process 1 ends with the guard, and the guard ends if `up` ends before the node is Ready.
//   - All mounts are made in the cluster's mount namespace, all addresses in network namespaces of the cluster.
//   - Files are written below the run folder only.
//
// Leaves to build.sh: the programs. Leaves to selftest: proof of the above.
package main

import (
	"flag"
	"fmt"
	"os"
)

const usage = `usage: node --target FOLDER --name SUFFIX COMMAND

  check                        what this machine lacks
  up                           start the cluster; ends when the node is Ready
  down                         end the cluster, remove everything
  kubectl ARGUMENT...          kubectl, in the cluster's network namespace
  enter COMMAND...             a command inside the cluster's namespaces (network, processes, mounts)
  image PROGRAM NAME...        import an image FROM scratch with one static program
  image FOLDER NAME...         import an image built from the folder's Containerfile
  import ARCHIVE               import an OCI archive
  client NAME                  make a network namespace of a client; prints its name
`

type command func(run, []string) error

var commands = map[string]command{
	"check":   func(r run, _ []string) error { return check(r) },
	"up":      up,
	"down":    down,
	"kubectl": kubectl,
	"enter":   enter,
	"image":   image,
	"import":  importArchives,
	"client":  client,
	// Started by the commands above.
	"guard":     guard,
	"init":      initialize,
	"supervise": supervise,
	"probe":     probe,
}

func main() {
	target := flag.String("target", "", "folder of programs and of the cluster's state")
	suffix := flag.String("name", "", "suffix of the cluster's name")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	chosen, known := commands[flag.Arg(0)]
	if !known || *target == "" || *suffix == "" {
		flag.Usage()
		os.Exit(2)
	}
	// Debian has ip, nft and runc in sbin, which is not on every user's PATH.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	r, err := newRun(*target, *suffix)
	// `check` and `up` say so themselves, with all else that is lacking.
	if name := flag.Arg(0); name != "check" && name != "up" && os.Geteuid() != 0 {
		err = fmt.Errorf("`%s` needs root", name)
	}
	if err == nil {
		err = chosen(r, flag.Args()[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}
