package wavegate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
)

// realGateway is a gateway as users run it, with the deterministic engine of its local upstream.
type realGateway struct {
	target  string
	process *exec.Cmd
}

// startGateway runs the gateway that WAVEGATE_SERVER names; where it is not set, the test is skipped.
func startGateway(t *testing.T, arguments ...string) *realGateway {
	t.Helper()
	server := os.Getenv("WAVEGATE_SERVER")
	if server == "" {
		t.Skip("WAVEGATE_SERVER is not set: it names the wavegate-server that this test runs")
	}
	portFile := filepath.Join(t.TempDir(), "port")
	process := exec.Command(server, append([]string{
		"--listen", "127.0.0.1:0", "--port-file", portFile, "--metrics-listen", "off", "--local-engine", "deterministic",
	}, arguments...)...)
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
		case <-time.After(hang):
			_ = process.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", log.String())
		}
	})
	limit := time.After(2 * hang)
	for {
		if port, err := os.ReadFile(portFile); err == nil && len(port) > 0 {
			return &realGateway{"127.0.0.1:" + strings.TrimSpace(string(port)), process}
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

// proxy leads to a target, over connections that can be cut.
type proxy struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String()}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				_ = near.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, near, far)
			p.mu.Unlock()
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
				_ = from.Close()
			}
			go pipe(near, far)
			go pipe(far, near)
		}
	}()
	return p
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

func connectTo(t *testing.T, targets ...string) *wavegate.Client {
	t.Helper()
	client, err := wavegate.NewClient("", wavegate.WithTargets(targets...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		if left := goroutines(10 * time.Second); left != "" {
			t.Errorf("goroutines of the client are left:\n%s", left)
		}
	})
	return client
}

func TestGateway(t *testing.T) {
	gateway := startGateway(t)
	t.Run("speak", func(t *testing.T) {
		ctx := testContext(t)
		client := connectTo(t, gateway.target)
		session, err := client.Synthesize(ctx, nil, wavegate.WithLabels(map[string]string{"test": "speak"}))
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		whole, err := session.Say(ctx, "Hello there.")
		if err != nil {
			t.Fatal(err)
		}
		audio, err := whole.ReadAll(ctx)
		if err != nil || len(audio) == 0 || len(audio)%2 != 0 {
			t.Errorf("%d bytes came, %v", len(audio), err)
		}
		pieces, err := session.SaySeq(ctx, slices.Values([]string{"Hello ", "the", "re."}))
		if err != nil {
			t.Fatal(err)
		}
		again, err := pieces.ReadAll(ctx)
		if err != nil || string(again) != string(audio) {
			t.Errorf("in pieces it sounds otherwise: %d bytes, %v", len(again), err)
		}
		found := false
		for live, err := range client.ListSessions(ctx, map[string]string{"test": "speak"}) {
			found = found || err == nil && live.GetSessionId() == session.ID()
		}
		if !found {
			t.Error("it is not among the live sessions")
		}
		if err := session.Finish(ctx); err != nil {
			t.Error(err)
		}
		if usage := session.Ended().GetUsage(); usage.GetUtteranceCount() != 2 {
			t.Errorf("it used %v", usage)
		}
	})
	t.Run("barge in", func(t *testing.T) {
		ctx := testContext(t)
		session, err := connectTo(t, gateway.target).Synthesize(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		story, err := session.Say(ctx, strings.Repeat("A very long story. ", 100))
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range story.Audio(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if err := story.Cancel(ctx, wavegate.WithPlaybackOffset(50*time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		outcome, err := story.Wait(ctx)
		if err != nil || outcome.Cancelled == nil || outcome.Cancelled.GetRemainingText() == "" {
			t.Errorf("the outcome is %v, %v", outcome, err)
		}
		answer, err := session.Say(ctx, "Yes?")
		if err != nil {
			t.Fatal(err)
		}
		if audio, err := answer.ReadAll(ctx); err != nil || len(audio) == 0 {
			t.Errorf("%d bytes of an answer, %v", len(audio), err)
		}
	})
	t.Run("listen", func(t *testing.T) {
		ctx := testContext(t)
		client := connectTo(t, gateway.target)
		speech, err := client.SynthesizeOnce(ctx, "Good morning.", nil, wavegate.WithEncoding(wavegate.Linear16, 16_000))
		if err != nil {
			t.Fatal(err)
		}
		session, err := client.Transcribe(ctx, &wavegate.TranscriptionSettings{WordTimings: new(true)})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if err := session.SendAudio(ctx, speech.Audio); err != nil {
			t.Fatal(err)
		}
		turn, err := session.Finalize(ctx)
		if err != nil || !strings.EqualFold(strings.Trim(turn.GetText(), "."), "good morning") || len(turn.GetWords()) != 2 {
			t.Errorf("it heard %v, %v", turn, err)
		}
		if err := session.Finish(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("settings", func(t *testing.T) {
		ctx := testContext(t)
		client := connectTo(t, gateway.target)
		session, err := client.Synthesize(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		control, err := client.SettingsStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer control.Close()
		if _, err := control.UpdateSynthesis(ctx, session.ID(), &wavegate.SynthesisSettings{Speed: new(1.5)}); err != nil {
			t.Fatal(err)
		}
		ack := next[*wavegate.SettingsAck](t, ctx, session)
		if ack.GetState() != speechv1.SettingsAck_STATE_APPLIED {
			t.Errorf("the ack is %v", ack)
		}
		_, err = session.UpdateSettings(ctx, &wavegate.SynthesisSettings{Speed: new(9.0)})
		wantKind(t, err, wavegate.KindInvalidRequest)
	})
	t.Run("resume", func(t *testing.T) {
		ctx := testContext(t)
		between := startProxy(t, gateway.target)
		client := connectTo(t, between.address)
		text := strings.Repeat("Whatever happens to the network, you will hear this once. ", 10)
		whole, err := client.SynthesizeOnce(ctx, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		session, err := client.Synthesize(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if _, err := session.Say(ctx, text, wavegate.WithUtteranceID("u1")); err != nil {
			t.Fatal(err)
		}
		var audio []byte
		back, index := 0, int32(0)
		for event, err := range session.Events(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			switch event := event.(type) {
			case *wavegate.AudioChunk:
				if event.GetChunkIndex() != index {
					t.Fatalf("chunk %d came in the place of %d", event.GetChunkIndex(), index)
				}
				index++
				if index%20 == 1 {
					between.cut()
				}
				audio = append(audio, event.GetAudio()...)
			case *wavegate.SessionResumed:
				back++
			}
			if _, is := event.(*wavegate.UtteranceCompleted); is {
				break
			}
		}
		if string(audio) != string(whole.Audio) || back == 0 {
			t.Errorf("%d bytes came over %d losses, not %d", len(audio), back, len(whole.Audio))
		}
	})
}

func TestGatewayDrains(t *testing.T) {
	first, second := startGateway(t), startGateway(t)
	ctx := testContext(t)
	session, err := connectTo(t, first.target, second.target).Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if err := first.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		id := fmt.Sprintf("u%d", i)
		if _, err := session.Say(ctx, "One two three.", wavegate.WithUtteranceID(id)); err != nil {
			t.Fatal(err)
		}
	}
	finished := 0
	moved := false
	for event, err := range session.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		switch event := event.(type) {
		case *wavegate.UtteranceCompleted:
			if event.GetUtteranceId() != fmt.Sprintf("u%d", finished) {
				t.Errorf("%s ended out of order", event.GetUtteranceId())
			}
			finished++
		case *wavegate.UtteranceFailed:
			t.Errorf("it failed: %v", event)
		case *wavegate.SessionMoved:
			moved = event.Target == second.target
		}
		if finished == 5 && moved {
			break
		}
	}
	if err := session.Finish(ctx); err != nil {
		t.Error(err)
	}
}

func TestGatewayRefusesToken(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("me:right-right-right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := startGateway(t, "--auth-tokens-file", tokens)
	for token, kind := range map[string]wavegate.Kind{"wrong": wavegate.KindAccessDenied, "right-right-right": ""} {
		client, err := wavegate.NewClient(gateway.target, wavegate.WithToken(token))
		if err != nil {
			t.Fatal(err)
		}
		session, err := client.Synthesize(context.Background(), nil)
		if kindOf(err) != kind {
			t.Errorf("with the token %s it is %v", token, err)
		}
		if session != nil {
			_ = session.Close()
		}
		_ = client.Close()
	}
}

// TestGatewayDrainsBehindOneName drains one of two gateways behind a name while sessions are spread over both.
func TestGatewayDrainsBehindOneName(t *testing.T) {
	first, second := startGateway(t), startGateway(t)
	client, err := wavegate.NewClient("ipv4:"+first.target+","+second.target, wavegate.WithRoundRobin())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const sessions, utterances = 6, 5
	var open []*wavegate.SynthesisSession
	for range sessions {
		session, err := client.Synthesize(testContext(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		open = append(open, session)
	}
	if err := first.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	moved := make(chan int, sessions)
	for number, session := range open {
		go func() {
			moves, done := 0, 0
			defer func() { moved <- moves }()
			ctx := testContext(t)
			for i := range utterances {
				if _, err := session.Say(ctx, "One two three four.", wavegate.WithUtteranceID(fmt.Sprintf("u%d", i))); err != nil {
					t.Errorf("session %d: %v", number, err)
					return
				}
			}
			if err := session.End(ctx); err != nil {
				t.Errorf("session %d: %v", number, err)
			}
			for event, err := range session.Events(ctx) {
				switch event := event.(type) {
				case nil:
					t.Errorf("session %d: %v", number, err)
				case *wavegate.SessionMoved:
					moves++
				case *wavegate.UtteranceFailed:
					t.Errorf("session %d: %v", number, event)
				case *wavegate.UtteranceCompleted:
					if event.GetUtteranceId() != fmt.Sprintf("u%d", done) {
						t.Errorf("session %d: %s ended out of order", number, event.GetUtteranceId())
					}
					done++
				}
			}
			if done != utterances {
				t.Errorf("session %d spoke %d utterances", number, done)
			}
		}()
	}
	total := 0
	for range sessions {
		total += <-moved
	}
	t.Logf("%d of %d sessions have moved", total, sessions)
}
