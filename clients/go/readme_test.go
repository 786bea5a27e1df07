package wavegate_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuickStart runs the first program of README.md as it is printed.
func TestQuickStart(t *testing.T) {
	gateway := startGateway(t)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), "```go\n")
	program, _, closed := strings.Cut(after, "```\n")
	if !found || !closed || !strings.HasPrefix(program, "package main") {
		t.Fatal("README.md begins with no program")
	}
	path := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("go", "run", path)
	command.Env = append(os.Environ(), "WAVEGATE_TARGET="+gateway.target)
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "bytes to play") {
		t.Errorf("it says\n%s%v", output, err)
	}
}
