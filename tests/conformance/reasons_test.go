package conformance

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"
)

// mostReasons and longestReason bound what is printed for a failed test; the log has all.
const (
	mostReasons   = 3
	longestReason = 400
)

var (
	// A line of testing that says whose lines follow.
	ownerLine = regexp.MustCompile(`^=== (?:RUN|NAME|CONT) +(\S+)`)
	// A line of the suite: file, time, text.
	noteLine = regexp.MustCompile(`^    \S+\.go:\d+: \d{4}-\S+Z: (.*)`)
	// Notes without a reason: that the time is over, and what goes well.
	emptyNote = regexp.MustCompile(`context deadline exceeded|^(Creating|Deleting|Updating|Applying|Running) |ready$`)
	// The suite says up to three things about one condition, the most exact one first.
	conditionNotes = []string{" condition Reason set to ", " condition set to Status ", " was not in conditions list "}
)

// A logReader collects why tests have failed. It knows testify's assertions: lines with the labels `Error:`, `Test:`
// and `Messages:`, and lines without a label that go on. The suite's last note before an assertion says what it waited for.
type logReader struct {
	owner   string
	notes   map[string]string
	places  map[string]int // of the last note in conditionNotes
	label   string
	fields  map[string]string
	reasons map[string][]string
}

// reasonsIn reads a log of the suite. Without a log there are no reasons.
func reasonsIn(log string) map[string][]string {
	reader := logReader{notes: map[string]string{}, places: map[string]int{}}
	reader.fields, reader.reasons = map[string]string{}, map[string][]string{}
	file, err := os.Open(log)
	if err != nil {
		return reader.reasons
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 8<<20) // lines of the suite hold whole objects
	for lines.Scan() {
		reader.read(lines.Text())
	}
	reader.keep()
	return reader.reasons
}

func (r *logReader) read(line string) {
	if label, text, isField := cutField(line); isField {
		r.readField(label, text)
		return
	}
	r.keep()
	if found := ownerLine.FindStringSubmatch(line); found != nil {
		r.owner = found[1]
	}
	if found := noteLine.FindStringSubmatch(line); found != nil && !emptyNote.MatchString(found[1]) {
		r.readNote(found[1])
	}
}

func (r *logReader) readNote(text string) {
	contains := func(mark string) bool { return strings.Contains(text, mark) }
	place := slices.IndexFunc(conditionNotes, contains)
	before, hasBefore := r.places[r.owner]
	r.places[r.owner] = place
	if !hasBefore || before < 0 || place <= before {
		r.notes[r.owner] = text
	}
}

func (r *logReader) readField(label, text string) {
	if label == "Error Trace" {
		r.keep()
	}
	if label != "" {
		r.label = label
	}
	r.fields[r.label] = strings.TrimSpace(r.fields[r.label] + " " + text)
}

// keep ends an assertion.
func (r *logReader) keep() {
	parts := strings.SplitN(r.fields["Test"], "/", 3)
	if len(parts) > 1 {
		r.reasons[parts[1]] = append(r.reasons[parts[1]], r.describe(parts[2:]))
	}
	r.fields, r.label = map[string]string{}, ""
}

func (r *logReader) describe(subtest []string) string {
	parts := []string{strings.ReplaceAll(strings.Join(subtest, ""), "_", " "), r.fields["Messages"]}
	reason := strings.TrimPrefix(r.fields["Error"], "Received unexpected error: ")
	if note := r.notes[r.fields["Test"]]; note != "" && emptyNote.MatchString(reason) {
		reason = note
	}
	parts = slices.DeleteFunc(append(parts, reason), func(part string) bool { return part == "" })
	text := strings.Join(parts, ": ")
	if runes := []rune(text); len(runes) > longestReason {
		text = string(runes[:longestReason]) + "..."
	}
	return text
}

// cutField splits a line of an assertion. The label is empty on a line that goes on.
func cutField(line string) (label, text string, isField bool) {
	rest, isField := strings.CutPrefix(line, "        \t")
	if !isField {
		return "", "", false
	}
	label, text, isField = strings.Cut(rest, "\t")
	return strings.TrimSuffix(strings.TrimSpace(label), ":"), strings.TrimSpace(text), isField
}

// someOf leaves out what is said already, and all beyond mostReasons.
func someOf(reasons []string) []string {
	var chosen []string
	for _, reason := range reasons {
		if len(chosen) < mostReasons && !slices.Contains(chosen, reason) {
			chosen = append(chosen, reason)
		}
	}
	return chosen
}
