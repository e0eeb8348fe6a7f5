// The upstream conformance suite of the Gateway API, against a controller of a cluster that is there already.
//
// `go test -c` makes it a program. Without a command it runs the suite; `-help` lists the flags, upstream's among them.
//
// Guarantees:
//   - A report exists only for a run that came to its end. At the time limit, or at a signal, the program says what
//     was running, and ends with status 3.
//   - What it prints for a profile is read from the report. The counts are the suite's own.
//
// Leaves to the script `conformance`: the cluster, the CRDs, the images, and the controller.
package conformance

import (
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// className and controllerName are the GatewayClass that the script creates.
const (
	className      = "tallygate"
	controllerName = "tallygate.io/gateway-controller"
)

// parallelTests: tests of the suite wait most of the time, so more of them run than there are cores.
const parallelTests = 4

var (
	reportFile = flag.String("report", "", "file of the report in YAML")
	logFile    = flag.String("log", "", "file of the suite's log; without it, the log is printed")
	timeLimit  = flag.Duration("time-limit", 40*time.Minute, "time limit of the whole run")
	isQuick    = flag.Bool("quick", false, "wait at most 10 s for each state, 60 s for the pods")
)

// terminal is where results are printed. The suite's log has os.Stdout.
var terminal io.Writer = os.Stdout

// Commands that need no cluster, and the imitation of a controller that proves the runner.
var commands = map[string]func([]string) error{
	"list":    printCatalogue,
	"images":  printImages,
	"class":   printClass,
	"summary": printReport,
	"pretend": pretend,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if command, known := commands[os.Args[1]]; known {
			exitWith(command(os.Args[2:]))
			os.Exit(0)
		}
	}
	// Defaults of ours; the command line comes later, and wins.
	must(flag.Set("test.v", "true"))
	must(flag.Set("test.parallel", fmt.Sprint(parallelTests)))
	flag.Parse()
	if flag.NArg() > 0 {
		exitWith(fmt.Errorf("unknown command `%s`: list, images, class, summary, pretend, or none", flag.Arg(0)))
	}
	exitWith(logInto(*logFile))
	os.Exit(m.Run())
}

// logInto sends all that testing and the suite print to a file.
func logInto(name string) error {
	if name == "" {
		return nil
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	os.Stdout, os.Stderr = file, file
	return nil
}

// exitWith ends the program if there is an error.
func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(terminal, "conformance:", err)
		os.Exit(2)
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
