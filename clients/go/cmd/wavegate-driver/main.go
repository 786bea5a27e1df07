// Command wavegate-driver lets the conformance suite of the clients (clients/conformance/README.md) judge the Go client: it
// does with the client's public API what commands on its standard input say, and tells on its standard output what comes
// of it. Both are JSON, one object a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	wavegate "example.com/wavegate/clients/go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func main() {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wavegate-driver:", err)
		os.Exit(1)
	}
}

// serve does what the commands say until `quit` or the end of the input.
func serve(commands io.Reader, answers io.Writer) error {
	d := &driver{
		out: &output{writer: answers}, clients: map[string]*wavegate.Client{}, sessions: map[string]*session{},
		controls: map[string]*control{},
	}
	defer d.closeAll()
	var running sync.WaitGroup
	lines := bufio.NewReaderSize(commands, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			var c command
			if err := json.Unmarshal(line, &c); err != nil {
				return fmt.Errorf("a command cannot be read: %w", err)
			}
			if c.Do == "quit" {
				d.closeAll()
				running.Wait()
				d.out.answer(c.ID, fields{}, nil)
				return nil
			}
			ctx := newBeginning(context.Background())
			running.Go(func() {
				ok, err := d.do(ctx, &c)
				d.out.answer(c.ID, ok, err)
				begin(ctx)
			})
			<-ctx.begun // so that commands begin in the order in which they come
		}
		if errors.Is(err, io.EOF) {
			d.closeAll()
			running.Wait()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// beginning is the context of a command. The client asks for Done where it begins to wait, and what it sends is in its place
// by then: so the command has begun.
type beginning struct {
	context.Context
	once  *sync.Once
	begun chan struct{}
}

func newBeginning(ctx context.Context) beginning {
	return beginning{ctx, &sync.Once{}, make(chan struct{})}
}

// Done implements context.Context.
func (b beginning) Done() <-chan struct{} {
	b.once.Do(func() { close(b.begun) })
	return b.Context.Done()
}

// begin says that a command has begun which waits for something else than its context.
func begin(ctx context.Context) { ctx.Done() }

// output writes whole lines.
type output struct {
	mu     sync.Mutex
	writer io.Writer
}

// fields is a JSON object.
type fields map[string]any

func (o *output) write(line fields) {
	encoded, err := json.Marshal(line)
	if err != nil {
		encoded, _ = json.Marshal(fields{"id": line["id"], "error": fields{"kind": "OTHER", "message": err.Error()}})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.writer.Write(append(encoded, '\n')) // a judge that has gone ends the input, too
}

func (o *output) answer(id json.RawMessage, ok fields, err error) {
	if err != nil {
		o.write(fields{"id": id, "error": errorFields(err)})
		return
	}
	o.write(fields{"id": id, "ok": ok})
}

// message is a message of the contract in its JSON form.
func message(m proto.Message) any {
	encoded, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return fields{"unreadable": err.Error()}
	}
	return json.RawMessage(encoded)
}

func messages[M proto.Message](all []M) []any {
	encoded := []any{}
	for _, m := range all {
		encoded = append(encoded, message(m))
	}
	return encoded
}

// errNotImplemented is for a command that this driver cannot do.
var errNotImplemented = errors.New("not implemented")

func errorFields(err error) fields {
	var known *wavegate.Error
	switch {
	case errors.Is(err, errNotImplemented):
		return fields{"kind": "NOT_IMPLEMENTED"}
	case !errors.As(err, &known):
		return fields{"kind": "CALLER", "message": err.Error()}
	}
	violations, quotas := []fields{}, []fields{}
	for _, v := range known.FieldViolations {
		violations = append(violations, fields{"field": v.Field, "description": v.Description})
	}
	for _, v := range known.QuotaViolations {
		quotas = append(quotas, fields{"subject": v.Subject, "description": v.Description})
	}
	metadata := known.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	told := fields{
		"kind": known.Kind, "code": wavegate.CodeName(known.Code), "reason": known.Reason, "message": known.Error(),
		"retryable": known.Retryable(), "retry_delay": nil, "field_violations": violations,
		"quota_violations": quotas, "metadata": metadata,
	}
	if known.RetryDelay > 0 {
		told["retry_delay"] = known.RetryDelay.Seconds()
	}
	return told
}
