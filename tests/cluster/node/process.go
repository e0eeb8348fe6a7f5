package main

import (
	"fmt"
	"os"
	"strings"
)

// A process is an id with the time of its start: the kernel gives ids again, and never both.
type process struct {
	pid     int
	started string
}

// processIn reads what text wrote.
func processIn(path string) (process, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return process{}, err
	}
	var p process
	if _, err := fmt.Sscan(string(text), &p.pid, &p.started); err != nil {
		return process{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func processOf(pid int) process {
	_, started := stateOf(pid)
	return process{pid, started}
}

func (p process) text() []byte {
	return fmt.Appendf(nil, "%d %s\n", p.pid, p.started)
}

// lives is false for a zombie. The command line is of no use here: it is empty as soon as a process begins to end.
func (p process) lives() bool {
	state, started := stateOf(p.pid)
	return started == p.started && state != "Z" && state != ""
}

// stateOf reads the state (field 3) and the time of the start (field 22) of /proc/PID/stat. The name before them is in
// parentheses and may contain anything.
func stateOf(pid int) (state, started string) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
	if len(fields) < 20 {
		return "", ""
	}
	return fields[0], fields[19]
}
