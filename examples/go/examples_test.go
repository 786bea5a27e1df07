// Package examples runs the examples as their README says.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/wavegate/examples/go/internal/gateway"
)

func TestExamples(t *testing.T) {
	target := gateway.Start(t)
	folder := t.TempDir()
	recording := filepath.Join(folder, "hello.wav")
	for _, example := range []struct {
		command []string
		input   string
		says    string // a regular expression
	}{
		{[]string{"./speak", "-o", recording, "Hello there."}, "", `hello\.wav: 720ms of audio`},
		{[]string{"./speak", "-o", recording}, "Hello there.\n", `hello\.wav: 720ms of audio`},
		{[]string{"./listen", recording}, "", `(?i)final +hello there`},
		{[]string{"./barge_in"}, "", `(?s)interrupted after 1.*heard: +"Once upon.*answer: `},
		{[]string{"./agent"}, "", `(?is)caller: hello there. how are you today.*interrupted; the caller has heard "You said.*caller: stop`},
	} {
		t.Run(strings.TrimPrefix(example.command[0], "./"), func(t *testing.T) {
			command := exec.Command("go", append([]string{"run"}, example.command...)...)
			command.Env = append(os.Environ(), "WAVEGATE_TARGET="+target)
			command.Stdin = strings.NewReader(example.input)
			output, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			if !regexp.MustCompile(example.says).Match(output) {
				t.Errorf("it says\n%s", output)
			}
		})
	}
}
