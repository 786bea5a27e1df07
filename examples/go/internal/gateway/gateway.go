// Package gateway runs the gateway that the tests of the examples need.
package gateway

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Start runs the gateway that WAVEGATE_SERVER names, with the deterministic engine of its local upstream; its target. Where
// the variable is not set, the test is skipped.
func Start(t *testing.T) string {
	t.Helper()
	server := os.Getenv("WAVEGATE_SERVER")
	if server == "" {
		t.Skip("WAVEGATE_SERVER is not set: it names the wavegate-server that this test runs")
	}
	portFile := filepath.Join(t.TempDir(), "port")
	process := exec.Command(server, "--listen", "127.0.0.1:0", "--port-file", portFile, "--metrics-listen", "off",
		"--local-engine", "deterministic")
	process.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "SMALLEST_API_KEY=") || strings.HasPrefix(variable, "WAVEGATE_")
	})
	var log bytes.Buffer
	process.Stderr = &log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = process.Wait()
	}()
	t.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		_ = process.Process.Signal(syscall.SIGTERM) // at once
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = process.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", log.String())
		}
	})
	limit := time.After(time.Minute)
	for {
		if port, err := os.ReadFile(portFile); err == nil && len(port) > 0 {
			return "127.0.0.1:" + strings.TrimSpace(string(port))
		}
		select {
		case <-exited:
			t.Fatal("the gateway does not run")
		case <-limit:
			t.Fatal("the gateway does not serve")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
