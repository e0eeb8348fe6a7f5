// Stands in for the gateway where the package is tested and not the program: it answers the probes, keeps a number of
// starts in its volume, and drains on SIGTERM.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	configuration = "/etc/tallygate/tallygate.yaml"
	startsFile    = "/var/lib/tallygate/starts"
	// drainTime is shorter than shutdown.delay of any test.
	drainTime = 2 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := expectPod(); err != nil {
		return err
	}
	starts, err := countStart()
	if err != nil {
		return err
	}
	var isEnding atomic.Bool
	http.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if isEnding.Load() {
			http.Error(w, "awaiting the shutdown", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "pod %s caller %s starts %d\n", os.Getenv("POD_NAME"), r.RemoteAddr, starts)
	})
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	failed := make(chan error, 2)
	for _, address := range []string{":9090", ":8080"} {
		go func() { failed <- http.ListenAndServe(address, nil) }()
	}
	fmt.Println("arguments:", strings.Join(os.Args[1:], " "))
	select {
	case err := <-failed:
		return err
	case <-ended:
		isEnding.Store(true)
		time.Sleep(drainTime)
		fmt.Println("drained")
		return nil
	}
}

// expectPod checks what the chart promises to the program.
func expectPod() error {
	if os.Getenv("POD_NAME") == "" || os.Getenv("POD_NAMESPACE") == "" {
		return errors.New("POD_NAME and POD_NAMESPACE are not set")
	}
	if _, err := os.ReadFile(configuration); err != nil {
		return err
	}
	if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token"); err != nil {
		return err
	}
	if err := os.WriteFile("/written", nil, 0o600); err == nil {
		return errors.New("the root of the container can be written")
	}
	if id := os.Getuid(); id != 65532 {
		return fmt.Errorf("the user is %d", id)
	}
	return os.WriteFile(filepath.Join(os.TempDir(), "written"), nil, 0o600)
}

func countStart() (int, error) {
	text, err := os.ReadFile(startsFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	starts, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	starts++
	return starts, os.WriteFile(startsFile, []byte(strconv.Itoa(starts)), 0o600)
}
