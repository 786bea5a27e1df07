package main

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

// judge speaks to a driver in this process.
type judge struct {
	t      *testing.T
	input  *io.PipeWriter
	output *bufio.Scanner
	done   chan error
	id     int
}

func newJudge(t *testing.T) *judge {
	commands, input := io.Pipe()
	output, answers := io.Pipe()
	j := &judge{t: t, input: input, output: bufio.NewScanner(output), done: make(chan error, 1)}
	go func() {
		j.done <- serve(commands, answers)
		_ = answers.Close()
	}()
	return j
}

// ask sends a command, and gives its answer.
func (j *judge) ask(command string) map[string]any {
	j.t.Helper()
	j.id++
	line := strings.Replace(command, "{", `{"id": `+string(rune('0'+j.id))+`, `, 1)
	if _, err := io.WriteString(j.input, line+"\n"); err != nil {
		j.t.Fatal(err)
	}
	if !j.output.Scan() {
		j.t.Fatal("the driver has ended")
	}
	var answer map[string]any
	if err := json.Unmarshal(j.output.Bytes(), &answer); err != nil {
		j.t.Fatal(err)
	}
	if answer["id"] != float64(j.id) {
		j.t.Errorf("the answer is %v", answer)
	}
	return answer
}

func kind(answer map[string]any) any {
	failure, _ := answer["error"].(map[string]any)
	return failure["kind"]
}

func TestDriver(t *testing.T) {
	j := newJudge(t)
	hello, _ := j.ask(`{"do": "hello"}`)["ok"].(map[string]any)
	if hello["language"] != "go" {
		t.Errorf("it says %v", hello)
	}
	for command, want := range map[string]string{
		`{"do": "dance"}`: "NOT_IMPLEMENTED",
		`{"do": "connect", "client": "c", "targets": ["http://a:1"]}`: "ARGUMENT",
		`{"do": "say", "session": "s", "text": "a"}`:                  "ARGUMENT",
	} {
		if got := kind(j.ask(command)); got != want {
			t.Errorf("%s gives %v", command, got)
		}
	}
	if answer := j.ask(`{"do": "connect", "client": "c", "targets": ["127.0.0.1:1"]}`); answer["ok"] == nil {
		t.Errorf("it says %v", answer)
	}
	if got := kind(j.ask(`{"do": "open_synthesis", "client": "c", "session": "s"}`)); got != "GATEWAY_UNAVAILABLE" {
		t.Errorf("it says %v", got)
	}
	if answer := j.ask(`{"do": "close_client", "client": "c"}`); answer["ok"] == nil {
		t.Errorf("it says %v", answer)
	}
	leaks, _ := j.ask(`{"do": "leaks"}`)["ok"].(map[string]any)
	if leaked, _ := leaks["leaked"].([]any); len(leaked) != 0 {
		t.Errorf("it leaks %v", leaked)
	}
	j.ask(`{"do": "quit"}`)
	select {
	case err := <-j.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}
