// The workload of the cluster's self test, and its client.
//
//	echo                   serves :8080
//	echo get URL           prints the response of one request
//	echo load URL SECONDS  requests over new connections, four at a time; prints the counts; fails if one request failed
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// countFile is in the volume of the StatefulSet.
const countFile = "/data/count"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 0:
		return serve()
	case len(args) == 2 && args[0] == "get":
		body, err := get(args[1])
		fmt.Print(body)
		return err
	case len(args) == 3 && args[0] == "load":
		seconds, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return load(args[1], time.Duration(seconds)*time.Second)
	}
	return fmt.Errorf("unknown arguments %q", args)
}

// serve runs until SIGTERM. A process with id 1 has no default action for signals, so one is needed.
func serve() error {
	http.HandleFunc("/", greet)
	http.HandleFunc("/fetch", fetch)
	http.HandleFunc("/count", count)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(":8080", nil) }()
	fmt.Println("listening on :8080")
	select {
	case <-ended:
		return nil
	case err := <-failed:
		return err
	}
}

// greet names the pod, and the address that the pod saw.
func greet(w http.ResponseWriter, r *http.Request) {
	host, _ := os.Hostname()
	fmt.Fprintf(w, "pod %s caller %s\n", host, r.RemoteAddr)
}

// fetch requests ?url= from within the pod.
func fetch(w http.ResponseWriter, r *http.Request) {
	body, err := get(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprint(w, body)
}

var countLock sync.Mutex

// count adds one to the number in the volume.
func count(w http.ResponseWriter, _ *http.Request) {
	countLock.Lock()
	defer countLock.Unlock()
	text, _ := os.ReadFile(countFile)
	number, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	number++
	if err := writeWhole(countFile, strconv.Itoa(number)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "%d\n", number)
}

func writeWhole(path, text string) error {
	next := filepath.Join(filepath.Dir(path), ".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// get uses a new connection for each request.
func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return string(body), err
}

func load(url string, duration time.Duration) error {
	var lock sync.Mutex
	var good, bad int
	var first error
	var senders sync.WaitGroup
	end := time.Now().Add(duration)
	for range 4 {
		senders.Go(func() {
			for time.Now().Before(end) {
				_, err := get(url)
				lock.Lock()
				if err == nil {
					good++
				} else if bad++; first == nil {
					first = err
				}
				lock.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	senders.Wait()
	fmt.Printf("%d requests, %d failed\n", good+bad, bad)
	if good == 0 || bad > 0 {
		return fmt.Errorf("%d of %d requests failed; the first: %v", bad, good+bad, first)
	}
	return nil
}
