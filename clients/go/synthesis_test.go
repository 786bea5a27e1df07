package wavegate_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestSpeak(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)

	utterance, err := session.Say(ctx, "Hello.", wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	text := call.recv(t)
	if text.GetInputSequence() != 2 || text.GetText().GetText() != "Hello." || !text.GetText().GetEndUtterance() ||
		text.GetText().GetUtteranceId() != "u1" {
		t.Errorf("the text came as %v", text)
	}
	call.say(t, chunk("u1", 0, "abcd"))
	call.say(t, chunk("u1", 1, "efgh"))
	call.say(t, completed("u1"))
	audio, err := io.ReadAll(utterance.Reader(ctx))
	if err != nil || string(audio) != "abcdefgh" {
		t.Errorf("read %q, %v", audio, err)
	}
	outcome, err := utterance.Wait(ctx)
	if err != nil || outcome.Completed.GetUtteranceId() != "u1" {
		t.Errorf("the outcome is %v, %v", outcome, err)
	}
	finished := make(chan error)
	go func() { finished <- session.Finish(ctx) }()
	if end := call.recv(t); end.GetEndSession() == nil || end.GetEndSession().GetDiscard() {
		t.Errorf("the end came as %v", end)
	}
	call.finish(t, ended(speechv1.SessionEnded_REASON_CLIENT_END), nil)
	if err := <-finished; err != nil {
		t.Error(err)
	}
	if session.Ended().GetReason() != speechv1.SessionEnded_REASON_CLIENT_END {
		t.Errorf("it ended with %v", session.Ended())
	}
}

func TestEventsInOrder(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	if _, err := session.Say(ctx, "One.", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	if err := session.End(ctx); err != nil {
		t.Fatal(err)
	}
	call.say(t, chunk("u1", 0, "ab"))
	call.say(t, completed("u1"))
	call.finish(t, ended(speechv1.SessionEnded_REASON_CLIENT_END), nil)
	var seen []string
	for event, err := range session.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		switch event.(type) {
		case *wavegate.SessionStarted:
			seen = append(seen, "started")
		case *wavegate.AudioChunk:
			seen = append(seen, "audio")
		case *wavegate.UtteranceCompleted:
			seen = append(seen, "completed")
		case *wavegate.SessionEnded:
			seen = append(seen, "ended")
		}
	}
	if want := []string{"started", "audio", "completed", "ended"}; !slices.Equal(seen, want) {
		t.Errorf("the events are %v", seen)
	}
	// What is over stays over.
	wantKind(t, session.End(ctx), wavegate.KindSessionClosed)
	_, err := session.Say(ctx, "More.")
	wantKind(t, err, wavegate.KindSessionClosed)
}

func TestTokens(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	// The second utterance waits for the first one's iterator, though its text is there at once.
	feed := make(chan string)
	first, err := session.SayChan(ctx, feed, wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Say(ctx, "Two.", wavegate.WithUtteranceID("u2")); err != nil {
		t.Fatal(err)
	}
	if _, err := session.SaySeq(ctx, slices.Values([]string{"Th", "ree."}), wavegate.WithUtteranceID("u3")); err != nil {
		t.Fatal(err)
	}
	feed <- "On"
	feed <- "e."
	feed <- "\xf0\x9f" // half of a character,
	feed <- "\x98\x80" // and the rest
	close(feed)
	var said []string
	for range 8 {
		request := call.recv(t)
		if end := request.GetEndUtterance(); end != nil {
			said = append(said, end.GetUtteranceId()+" ends")
			continue
		}
		said = append(said, request.GetText().GetUtteranceId()+" "+request.GetText().GetText())
	}
	want := []string{"u1 On", "u1 e.", "u1 \U0001F600", "u1 ends", "u2 Two.", "u3 Th", "u3 ree.", "u3 ends"}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
	if first.ID() != "u1" || first.Cancelled() {
		t.Error("the handle is another one's")
	}
}

func TestLongTextIsCut(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	text := strings.Repeat("Wörter und ", 200) // 2200 characters, of which the gateway takes 1000 a message
	if _, err := session.Say(ctx, text+"\xff", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	var joined strings.Builder
	for {
		piece := call.recv(t).GetText()
		if count := len([]rune(piece.GetText())); count > 1000 {
			t.Errorf("a piece has %d characters", count)
		}
		joined.WriteString(piece.GetText())
		if piece.GetEndUtterance() {
			break
		}
	}
	if joined.String() != text+"\uFFFD" {
		t.Error("the pieces are not the text")
	}
}

func TestCancel(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	stopped := make(chan error, 1)
	utterance, err := session.SayFunc(ctx, func(ctx context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			yield("A story", nil)
			<-ctx.Done()
			stopped <- ctx.Err()
			yield("", ctx.Err())
		}
	}, wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	call.recv(t)
	next[*wavegate.SessionStarted](t, ctx, session)
	call.say(t, &wavegate.UtteranceStarted{UtteranceId: "u1"})
	call.say(t, chunk("u1", 0, "heard"))
	next[*wavegate.AudioChunk](t, ctx, session)
	call.say(t, chunk("u1", 1, "buffered"))
	call.say(t, &wavegate.UtteranceStarted{UtteranceId: "u9"}) // behind which the chunk has arrived for sure
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		_, _ = session.UpdateSettings(ctx, &wavegate.SynthesisSettings{}, wavegate.WithUpdateID("x"))
	}()
	call.recv(t)
	call.say(t, &wavegate.SettingsAck{UpdateId: "x", State: speechv1.SettingsAck_STATE_APPLIED})
	<-acked

	if err := utterance.Cancel(ctx, wavegate.WithPlaybackOffset(250*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("the iterator was stopped with %v", err)
	}
	cancel := call.recv(t).GetCancel()
	if cancel.GetUtteranceId() != "u1" || cancel.GetPlaybackOffset().AsDuration() != 250*time.Millisecond {
		t.Errorf("the cancel came as %v", cancel)
	}
	if err := utterance.Cancel(ctx); err != nil { // twice
		t.Fatal(err)
	}
	call.recv(t)
	call.say(t, chunk("u1", 2, "late"))
	call.say(t, cancelled("u1"))
	outcome, err := utterance.Wait(ctx)
	if err != nil || outcome.Cancelled.GetSpokenText() != "heard" {
		t.Errorf("the outcome is %v, %v", outcome, err)
	}
	for _, err := range utterance.Audio(ctx) {
		t.Errorf("audio came after the cancel (%v)", err)
	}
	for {
		event, err := session.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, is := event.(*wavegate.AudioChunk); is {
			t.Error("audio was delivered after the cancel")
		}
		if _, is := event.(*wavegate.UtteranceCancelled); is {
			break
		}
	}
}

func TestCancelOfWhatWasNeverSent(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	feed := make(chan string)
	if _, err := session.SayChan(ctx, feed); err != nil {
		t.Fatal(err)
	}
	waits, err := session.Say(ctx, "Later.", wavegate.WithUtteranceID("later"))
	if err != nil {
		t.Fatal(err)
	}
	if err := waits.Cancel(ctx); err != nil {
		t.Fatal(err)
	}
	outcome, err := waits.Wait(ctx)
	if err != nil || outcome.Cancelled.GetMethod() != speechv1.UtteranceCancelled_METHOD_NOT_SENT {
		t.Errorf("the outcome is %v, %v", outcome, err)
	}
	_, err = session.Say(ctx, "Again.", wavegate.WithUtteranceID("later"))
	wantKind(t, err, wavegate.KindArgument)
	feed <- "Now."
	if request := call.recv(t); request.GetText().GetText() != "Now." {
		t.Errorf("%v was sent", request)
	}
	close(feed)
}

func TestIteratorThatFails(t *testing.T) {
	mine := errors.New("the language model has failed")
	for name, fails := range map[string]func(yield func(string, error) bool){
		"error": func(yield func(string, error) bool) { _ = yield("One ", nil) && yield("", mine) },
		"panic": func(yield func(string, error) bool) { yield("One ", nil); panic(mine) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			gateway := newFake(t)
			session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
			asked, err := session.SaySeq2(ctx, fails, wavegate.WithUtteranceID("u1"))
			if err != nil {
				t.Fatal(err)
			}
			call.recv(t)
			if cancel := call.recv(t).GetCancel(); cancel.GetUtteranceId() != "u1" {
				t.Errorf("the utterance was not cancelled: %v", cancel)
			}
			call.say(t, cancelled("u1"))
			_, err = asked.Wait(ctx)
			checkMine(t, err, mine, name == "panic")
			for _, err := range asked.Audio(ctx) {
				checkMine(t, err, mine, name == "panic")
			}
			// What nobody asks for comes out of Finish.
			if _, err = session.SaySeq2(ctx, fails, wavegate.WithUtteranceID("u2")); err != nil {
				t.Fatal(err)
			}
			call.recv(t)
			call.recv(t)
			call.say(t, cancelled("u2"))
			go func() {
				call.recv(t)
				call.finish(t, ended(speechv1.SessionEnded_REASON_CLIENT_END), nil)
			}()
			checkMine(t, session.Finish(ctx), mine, name == "panic")
		})
	}
}

func checkMine(t *testing.T, err, mine error, panicked bool) {
	t.Helper()
	if !panicked {
		if !errors.Is(err, mine) {
			t.Errorf("the error is %v", err)
		}
		return
	}
	var told *wavegate.PanicError
	if !errors.As(err, &told) || told.Value != error(mine) || !bytes.Contains(told.Stack, []byte("synthesis_test.go")) {
		t.Errorf("the error is %v", err)
	}
}

func TestFailedUtterance(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	utterance, err := session.Say(ctx, "No.", wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	call.say(t, &wavegate.UtteranceFailed{
		UtteranceId: "u1", Error: inStream(refusal(codes.InvalidArgument, "UPSTREAM_REJECTED", "no such voice")),
	})
	_, err = utterance.Wait(ctx)
	if failure := wantKind(t, err, wavegate.KindInvalidRequest); failure.Reason != "UPSTREAM_REJECTED" {
		t.Errorf("the reason is %q", failure.Reason)
	}
	_, err = utterance.ReadAll(ctx)
	wantKind(t, err, wavegate.KindInvalidRequest)
	if _, err := session.Say(ctx, "Yes."); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
}

// TestSlowReader holds at every read that what is not read waits in the gateway.
func TestSlowReader(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	if _, err := session.Say(ctx, "Long.", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	const total = 400
	piece := strings.Repeat("x", 16<<10)
	// The client's buffer and the window of the stream are 64 KiB each, and so is what a gateway has in its transport. Each may
	// be exceeded by a piece.
	const bound = 3*(64/16+1) + 1
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range total {
			call.say(t, chunk("u1", int32(i), piece))
			sent.Add(1)
		}
		call.say(t, completed("u1"))
	}()
	received := 0
	for audio, err := range session.Utterance("u1").Audio(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if ahead := int(sent.Load()) - received; ahead > bound {
			t.Fatalf("%d pieces are on their way", ahead)
		}
		if len(audio) != len(piece) {
			t.Fatalf("a piece of %d bytes came", len(audio))
		}
		received++
	}
	if received != total {
		t.Errorf("%d pieces came", received)
	}
	<-done
}

func TestReadingGoesOnForAnswers(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	go func() {
		call.recv(t)
		for i := range 64 {
			call.say(t, chunk("u1", int32(i), strings.Repeat("x", 16<<10)))
		}
		call.say(t, &wavegate.SettingsAck{
			UpdateId: "mine", State: speechv1.SettingsAck_STATE_APPLIED, SettingsRevision: 2,
			Settings: &speechv1.EffectiveSettings{Settings: &speechv1.EffectiveSettings_Synthesis{
				Synthesis: &wavegate.SynthesisSettings{Speed: new(1.5)},
			}},
		})
	}()
	ack, err := session.UpdateSettings(ctx, &wavegate.SynthesisSettings{Speed: new(1.5)}, wavegate.WithUpdateID("mine"))
	if err != nil || ack.GetSettingsRevision() != 2 {
		t.Fatalf("the ack is %v, %v", ack, err)
	}
	if settings, revision := session.Settings(); settings.GetSpeed() != 1.5 || revision != 2 {
		t.Errorf("the settings are %v, %d", settings, revision)
	}
}

func TestRefusedUpdate(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	go func() {
		update := call.recv(t).GetUpdateSettings()
		if update.GetApplyPolicy() != wavegate.ApplyImmediately || update.GetExpectedRevision() != 7 ||
			!slices.Equal(update.GetResetMask().GetPaths(), []string{"speed"}) {
			t.Errorf("the update came as %v", update)
		}
		call.say(t, &wavegate.SettingsAck{
			UpdateId: update.GetUpdateId(), State: speechv1.SettingsAck_STATE_REJECTED,
			Error: inStream(refusal(codes.Aborted, "REVISION_MISMATCH", "the session is at revision 1")),
		})
	}()
	_, err := session.UpdateSettings(ctx, nil, wavegate.WithReset("speed"), wavegate.WithApply(wavegate.ApplyImmediately),
		wavegate.WithExpectedRevision(7))
	if failure := wantKind(t, err, wavegate.KindConflict); failure.Reason != "REVISION_MISMATCH" {
		t.Errorf("the reason is %q", failure.Reason)
	}
	_, err = session.UpdateSettings(ctx, nil, wavegate.WithReset("sped"))
	wantKind(t, err, wavegate.KindArgument)
}

func TestUnknownEventsAreSkipped(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	next[*wavegate.SessionStarted](t, ctx, session)
	unknown := &speechv1.SynthesizeStreamResponse{Sequence: 2}
	field := protowire.AppendTag(nil, 77, protowire.BytesType)
	unknown.ProtoReflect().SetUnknown(protowire.AppendBytes(field, []byte("of a newer gateway")))
	if err := call.stream.Send(unknown); err != nil {
		t.Fatal(err)
	}
	call.sequence = 2
	call.say(t, chunk("u1", 0, "ab"))
	event, err := session.Next(ctx)
	if audio, is := event.(*wavegate.AudioChunk); err != nil || !is || string(audio.GetAudio()) != "ab" {
		t.Errorf("the event is %v, %v", event, err)
	}
}

func TestContextEndsSession(t *testing.T) {
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	ctx, cancel := context.WithCancel(testContext(t))
	session, call := synthesize(t, ctx, client, gateway)
	cancel()
	if end := call.recv(t).GetEndSession(); !end.GetDiscard() {
		t.Errorf("the end came as %v", end)
	}
	for _, err := range session.Events(testContext(t)) {
		if err != nil {
			wantKind(t, err, wavegate.KindCancelled)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("errors.Is does not find it in %v", err)
			}
		}
	}
	call.end <- nil
}

func TestGivingUpAWaitLosesNothing(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	next[*wavegate.SessionStarted](t, ctx, session)
	soon, cancel := context.WithCancel(ctx)
	cancel()
	_, err := session.Next(soon)
	wantKind(t, err, wavegate.KindCancelled)
	call.say(t, chunk("u1", 0, "ab"))
	if audio := next[*wavegate.AudioChunk](t, ctx, session); string(audio.GetAudio()) != "ab" {
		t.Errorf("%v came", audio)
	}
}

func TestCloseTwice(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	session, call := synthesize(t, ctx, client, gateway)
	feed := make(chan string)
	if _, err := session.SayChan(ctx, feed); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = call.gone(t)
		call.end <- nil
	}()
	var closing sync.WaitGroup
	for range 3 {
		closing.Go(func() {
			if err := session.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closing.Wait()
	wantKind(t, session.Cancel(ctx), wavegate.KindSessionClosed)
	_, err := session.Next(ctx) // what came before is still there
	if err != nil {
		t.Error(err)
	}
	if _, err := session.Next(ctx); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := session.Finish(ctx); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	_ = client.Close()
	_, err = client.Synthesize(ctx, nil)
	wantKind(t, err, wavegate.KindSessionClosed)
}

func TestClientCloseEndsSessions(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	session, call := synthesize(t, ctx, client, gateway)
	go func() {
		_ = call.gone(t)
		call.end <- nil
	}()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := session.Say(ctx, "Too late.")
	wantKind(t, err, wavegate.KindSessionClosed)
}

func TestDroppedSession(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	call := dropped(t, ctx, client, gateway)
	limit := time.After(hang)
	for {
		runtime.GC()
		select {
		case request := <-call.requests:
			if !request.GetEndSession().GetDiscard() {
				t.Fatalf("%v came", request)
			}
			call.end <- nil
			return
		case <-limit:
			t.Fatal("the session that was dropped is still open")
		case <-time.After(time.Millisecond):
		}
	}
}

//go:noinline
func dropped(t *testing.T, ctx context.Context, client *wavegate.Client, gateway *fakeGateway) *synthesisCall {
	opening := make(chan *synthesisCall, 1)
	go func() {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.say(t, started("s-1"))
		opening <- call
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session.ID() != "s-1" {
		t.Errorf("its id is %q", session.ID())
	}
	return <-opening
}

func TestTextInPieces(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	utterance, err := session.SendText(ctx, "One ")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return session.Flush(ctx) },
		func() error { _, err := session.SendText(ctx, "two"); return err },
		func() error { return session.EndUtterance(ctx) },
		func() error { return session.ReportPlayback(ctx, utterance.ID(), time.Second) },
		func() error {
			_, err := session.SendText(ctx, "Three", wavegate.WithUtteranceID("u3"), wavegate.WithEndOfUtterance())
			return err
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	id := utterance.ID()
	if text := call.recv(t).GetText(); text.GetUtteranceId() != id || text.GetText() != "One " {
		t.Errorf("%v came", text)
	}
	if flush := call.recv(t).GetFlush(); flush.GetUtteranceId() != id {
		t.Errorf("%v came", flush)
	}
	if text := call.recv(t).GetText(); text.GetUtteranceId() != id || text.GetEndUtterance() {
		t.Errorf("%v came", text)
	}
	if end := call.recv(t).GetEndUtterance(); end.GetUtteranceId() != id {
		t.Errorf("%v came", end)
	}
	if report := call.recv(t).GetPlayback(); report.GetUtteranceId() != id || report.GetPlaybackOffset().AsDuration() != time.Second {
		t.Errorf("%v came", report)
	}
	if text := call.recv(t).GetText(); text.GetUtteranceId() != "u3" || !text.GetEndUtterance() {
		t.Errorf("%v came", text)
	}
}

func TestAudioOfSession(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	for _, id := range []string{"u1", "u2"} {
		if _, err := session.Say(ctx, "Text.", wavegate.WithUtteranceID(id)); err != nil {
			t.Fatal(err)
		}
	}
	call.say(t, chunk("u1", 0, "a"))
	call.say(t, &wavegate.UtteranceFailed{UtteranceId: "u1", Error: inStream(refusal(codes.Unavailable, "UPSTREAM_STALLED", "silent"))})
	call.say(t, chunk("u2", 0, "b"))
	call.say(t, completed("u2"))
	go call.finish(t, ended(speechv1.SessionEnded_REASON_LIMIT), nil)
	var heard string
	var failures []error
	for audio, err := range session.Audio(ctx) {
		heard += string(audio)
		if err != nil {
			failures = append(failures, err)
		}
	}
	if heard != "ab" || len(failures) != 1 {
		t.Fatalf("%q came, with %v", heard, failures)
	}
	wantKind(t, failures[0], wavegate.KindUpstream)
}

func TestCopyOfAnUtterance(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	utterance, err := session.Say(ctx, "Text.", wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	call.say(t, chunk("u0", 0, "of another one"))
	call.say(t, chunk("u1", 0, "ab"))
	call.say(t, chunk("u1", 1, "cd"))
	call.say(t, completed("u1"))
	call.say(t, chunk("u2", 0, "of the next one"))
	var file bytes.Buffer
	if n, err := io.Copy(&file, utterance.Reader(ctx)); err != nil || n != 4 || file.String() != "abcd" {
		t.Errorf("%d bytes: %q, %v", n, file.String(), err)
	}
	if audio := next[*wavegate.AudioChunk](t, ctx, session); audio.GetUtteranceId() != "u2" {
		t.Errorf("%v is next", audio)
	}
}

// TestIteratorThatBlocks closes a session whose iterator does not mind its context.
func TestIteratorThatBlocks(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	release := make(chan struct{})
	defer close(release)
	if _, err := session.SaySeq(ctx, func(yield func(string) bool) {
		yield("One ")
		<-release
	}); err != nil {
		t.Fatal(err)
	}
	call.recv(t)
	if err := session.Close(); err != nil {
		t.Error(err)
	}
}

func TestManyUtterances(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	first := ""
	for i := range 600 {
		utterance, err := session.Say(ctx, "Text.")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = utterance.ID()
		}
		call.say(t, completed(utterance.ID()))
		if _, err := utterance.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if session.Utterance(first) != nil {
		t.Error("the first is still remembered")
	}
}

func TestTakenOver(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	taken := refusal(codes.Aborted, "SESSION_TAKEN_OVER", "another call has taken the session up")
	go call.finish(t, &wavegate.SessionEnded{
		Reason: speechv1.SessionEnded_REASON_TAKEN_OVER, Status: inStream(taken),
	}, taken.Err())
	err := session.Finish(ctx)
	if e := wantKind(t, err, wavegate.KindConflict); e.Reason != "SESSION_TAKEN_OVER" {
		t.Errorf("the reason is %q", e.Reason)
	}
}

func TestDiscardStopsIterators(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	feed := make(chan string)
	if _, err := session.SayChan(ctx, feed); err != nil {
		t.Fatal(err)
	}
	go func() {
		for !call.recv(t).GetEndSession().GetDiscard() {
			continue
		}
		call.finish(t, ended(speechv1.SessionEnded_REASON_CLIENT_END), nil)
	}()
	if err := session.Discard(ctx); err != nil {
		t.Fatal(err)
	}
	if err := session.Finish(ctx); err != nil {
		t.Error(err)
	}
}

func TestCloseWhileOpening(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	opened := make(chan error, 1)
	go func() {
		_, err := client.Synthesize(ctx, nil)
		opened <- err
	}()
	call := accept(t, gateway.synthesis)
	call.recv(t)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	wantKind(t, <-opened, wavegate.KindSessionClosed)
	if end := call.recv(t); !end.GetEndSession().GetDiscard() {
		t.Errorf("the session that nobody waits for was left with %v", end)
	}
}

func TestContextIsDoneWhileOpening(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	opened := make(chan error, 1)
	go func() {
		_, err := client.Synthesize(ctx, nil)
		opened <- err
	}()
	call := accept(t, gateway.synthesis)
	call.recv(t)
	cancel()
	wantKind(t, <-opened, wavegate.KindCancelled)
	_, err := client.Synthesize(ctx, nil)
	wantKind(t, err, wavegate.KindCancelled)
}

// TestDroppedClient drops everything at once.
func TestDroppedClient(t *testing.T) {
	gateway := newFake(t)
	droppedClient(t, gateway)
	limit := time.Now().Add(hang)
	for {
		runtime.GC()
		if left := goroutines(time.Millisecond); left == "" {
			return
		} else if time.Now().After(limit) {
			t.Fatalf("goroutines of what was dropped are left:\n%s", left)
		}
	}
}

//go:noinline
func droppedClient(t *testing.T, gateway *fakeGateway) {
	client, err := wavegate.NewClient(gateway.target)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.say(t, started("s-1"))
	}()
	session, err := client.Synthesize(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	control, err := client.SettingsStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if session.ID() != "s-1" || control == nil {
		t.Errorf("its id is %q", session.ID())
	}
}
