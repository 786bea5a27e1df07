package wavegate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A lost connection looks like any of these, through gRPC and the proxies in use.
var losses = []codes.Code{codes.Unavailable, codes.Internal, codes.Canceled, codes.Unknown}

func TestResume(t *testing.T) {
	for _, loss := range losses {
		t.Run(loss.String(), func(t *testing.T) {
			ctx := testContext(t)
			gateway := newFake(t)
			session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
			next[*wavegate.SessionStarted](t, ctx, session)
			if _, err := session.SendText(ctx, "One ", wavegate.WithUtteranceID("u1")); err != nil {
				t.Fatal(err)
			}
			call.recv(t)
			call.acked = 2
			call.say(t, chunk("u1", 0, "a")) // 2; it acknowledges the first text
			next[*wavegate.AudioChunk](t, ctx, session)
			if _, err := session.SendText(ctx, "two."); err != nil {
				t.Fatal(err)
			}
			call.recv(t) // which the gateway has lost with the call
			call.end <- status.Error(loss, "RST_STREAM closed stream")

			again := accept(t, gateway.synthesis)
			start := again.recv(t)
			if start.GetInputSequence() != 1 || start.GetStart().GetResumeSessionId() != "s-1" ||
				start.GetStart().GetLastReceivedSequence() != 2 {
				t.Errorf("it resumes with %v", start)
			}
			again.sequence = 1
			again.say(t, resumed("s-1", 2)) // under the number of the last that was received
			text := again.recv(t)
			if text.GetInputSequence() != 3 || text.GetText().GetText() != "two." {
				t.Errorf("what was not acknowledged came as %v", text)
			}
			// What was missed comes under its old numbers; what was received before comes once more, too.
			again.sequence = 1
			again.say(t, chunk("u1", 0, "a"))
			again.say(t, chunk("u1", 1, "b"))
			again.say(t, chunk("u1", 2, "c"))
			back := next[*wavegate.SessionResumed](t, ctx, session)
			if back.SessionID != "s-1" || back.Attempts != 1 || back.Cause.Kind != wavegate.KindConnectionLost {
				t.Errorf("it told %+v", back)
			}
			for _, want := range []string{"b", "c"} {
				if audio := next[*wavegate.AudioChunk](t, ctx, session); string(audio.GetAudio()) != want {
					t.Errorf("%q came, not %q", audio.GetAudio(), want)
				}
			}
			// And the next input goes on with the numbers.
			if err := session.EndUtterance(ctx); err != nil {
				t.Fatal(err)
			}
			if end := again.recv(t); end.GetInputSequence() != 4 || end.GetEndUtterance().GetUtteranceId() != "u1" {
				t.Errorf("the end came as %v", end)
			}
		})
	}
}

func TestResumeOverAnotherConnection(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	for range 3 { // as often as it takes
		gateway.cut()
		call = accept(t, gateway.synthesis)
		if start := call.recv(t).GetStart(); start.GetResumeSessionId() != "s-1" {
			t.Fatalf("it came with %v", start)
		}
		call.sequence = max(call.sequence, 0)
		call.say(t, resumed("s-1", 1))
		next[*wavegate.SessionResumed](t, ctx, session)
	}
	utterance, err := session.Say(ctx, "Still here.", wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	call.recv(t)
	call.say(t, chunk("u1", 0, "ab"))
	call.say(t, completed("u1"))
	if audio, err := utterance.ReadAll(ctx); err != nil || string(audio) != "ab" {
		t.Errorf("read %q, %v", audio, err)
	}
}

func TestResumeIsRefused(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	utterance, err := session.Say(ctx, "Lost.", wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	call.recv(t)
	call.end <- status.Error(codes.Unavailable, "the network has failed")
	again := accept(t, gateway.synthesis)
	again.recv(t)
	again.end <- refusal(codes.NotFound, "SESSION_NOT_FOUND", "there is no live session").Err()
	_, err = utterance.Wait(ctx)
	failure := wantKind(t, err, wavegate.KindConnectionLost)
	if failure.Reason != "SESSION_NOT_FOUND" || !strings.Contains(failure.Message, "lost: utterance u1") ||
		!strings.Contains(failure.Message, "could not be resumed: there is no live session") {
		t.Errorf("it tells %q (%s)", failure.Message, failure.Reason)
	}
	for _, err := range session.Events(ctx) {
		if err != nil {
			wantKind(t, err, wavegate.KindConnectionLost)
			return
		}
	}
	t.Error("the events end without the failure")
}

func TestResumeSwitchedOff(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	go func() {
		call := accept(t, gateway.synthesis)
		if start := call.recv(t).GetStart(); start.GetResumeWindow() != nil {
			t.Errorf("a resume window is asked for: %v", start)
		}
		first := started("s-1")
		first.Limits.ResumeWindow = nil
		call.say(t, first)
		call.end <- status.Error(codes.Unavailable, "the network has failed")
	}()
	session, err := client.Synthesize(ctx, nil, wavegate.WithResumeWindow(0))
	if err != nil {
		t.Fatal(err)
	}
	next[*wavegate.SessionStarted](t, ctx, session)
	_, err = session.Next(ctx)
	wantKind(t, err, wavegate.KindConnectionLost)
	if err := session.Finish(ctx); err != nil {
		t.Errorf("the failure was told before: %v", err)
	}
}

// TestLossBeforeTheAnswer loses the call when the gateway has named the session, and the upstream has not accepted it yet.
func TestLossBeforeTheAnswer(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	go func() {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		if err := call.stream.SendHeader(map[string][]string{"wavegate-session-id": {"s-7"}}); err != nil {
			t.Error(err)
		}
		call.end <- status.Error(codes.Unavailable, "the network has failed")
		again := accept(t, gateway.synthesis)
		if start := again.recv(t).GetStart(); start.GetResumeSessionId() != "s-7" || start.GetLastReceivedSequence() != 0 {
			t.Errorf("it resumes with %v", start)
		}
		again.sequence = -1
		again.say(t, resumed("s-7", 1)) // number 0: not open yet
		again.say(t, started("s-7"))
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session.ID() != "s-7" {
		t.Errorf("the session is %q", session.ID())
	}
}

func TestLossInTheMiddleOfResuming(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	call.end <- status.Error(codes.Unavailable, "the network has failed")
	for _, again := range []error{ // calls that bring nothing count as one outage
		status.Error(codes.Unavailable, "and again"),
		status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"),
	} {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.end <- again
	}
	again := accept(t, gateway.synthesis)
	again.recv(t)
	again.say(t, resumed("s-1", 1))
	if back := next[*wavegate.SessionResumed](t, ctx, session); back.Attempts != 3 {
		t.Errorf("it took %d attempts", back.Attempts)
	}
}

func TestNotEveryFailureIsALoss(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	call.end <- refusal(codes.Internal, "GATEWAY_BUG", "a bug").Err()
	next[*wavegate.SessionStarted](t, ctx, session)
	_, err := session.Next(ctx)
	if failure := wantKind(t, err, wavegate.KindOther); failure.Reason != "GATEWAY_BUG" {
		t.Errorf("the reason is %q", failure.Reason)
	}
}

// TestInputWhileThereIsNoCall takes a megabyte, and then has the sender wait.
func TestInputWhileThereIsNoCall(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := transcribe(t, ctx, connect(t, nil, gateway), gateway)
	call.end <- status.Error(codes.Unavailable, "the network has failed")
	again := accept(t, gateway.transcribe) // which stays without an answer for now
	again.recv(t)
	piece := make([]byte, 32<<10)
	const pieces = 1<<20/(32<<10) - 1 // with what a request has besides
	for range pieces {
		if err := session.SendAudio(ctx, piece); err != nil {
			t.Fatal(err)
		}
	}
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	wantKind(t, session.SendAudio(soon, piece), wavegate.KindDeadline)
	kept := (pieces + 1) * len(piece) // giving up the wait takes nothing back
	again.say(t, listens{resumed("s-1", 1)})
	for received := 0; received < kept; {
		received += len(again.recv(t).GetAudio().GetContent())
	}
}

// --- moving --------------------------------------------------------------------------------------

func goAway() *wavegate.GoAway {
	return &wavegate.GoAway{Reason: "GATEWAY_DRAINING", TimeLeft: durationpb.New(20 * time.Second)}
}

func TestMoveBetweenUtterances(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first)
	if _, err := session.Say(ctx, "One.", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Say(ctx, "Two.", wavegate.WithUtteranceID("u2")); err != nil {
		t.Fatal(err)
	}
	call.acked = 3
	call.say(t, &wavegate.UtteranceStarted{UtteranceId: "u1"})
	call.say(t, chunk("u1", 0, "a"))
	next[*wavegate.AudioChunk](t, ctx, session)
	call.say(t, goAway())

	other := accept(t, second.synthesis)
	start := other.recv(t).GetStart()
	if start.GetResumeSessionId() != "" || start.GetSettings().GetVoiceId() != "magnus" {
		t.Errorf("it opens with %v", start)
	}
	other.say(t, started("s-2"))
	call.say(t, chunk("u1", 1, "b")) // what is being heard is finished where it is
	call.say(t, completed("u1"))
	if audio := next[*wavegate.AudioChunk](t, ctx, session); string(audio.GetAudio()) != "b" {
		t.Errorf("%v came", audio)
	}
	moved := next[*wavegate.SessionMoved](t, ctx, session)
	if moved.PreviousSessionID != "s-1" || moved.Started.GetSessionId() != "s-2" || moved.Target != second.target {
		t.Errorf("it told %+v", moved)
	}
	if text := other.recv(t); text.GetInputSequence() != 2 || text.GetText().GetUtteranceId() != "u2" {
		t.Errorf("the second utterance came as %v", text)
	}
	if session.ID() != "s-2" || session.GoAway() != nil {
		t.Errorf("it is %s, %v", session.ID(), session.GoAway())
	}
	for {
		request := call.recv(t)
		if request.GetEndSession().GetDiscard() {
			break
		}
	}
	other.say(t, chunk("u2", 0, "c"))
	other.say(t, completed("u2"))
	if audio := next[*wavegate.AudioChunk](t, ctx, session); string(audio.GetAudio()) != "c" {
		t.Errorf("%v came", audio)
	}
	// Text for what ended at the first gateway is not spoken by the second.
	if _, err := session.SendText(ctx, "late", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	if warning := next[*wavegate.Warning](t, ctx, session); warning.GetReason() != "STALE_TEXT" {
		t.Errorf("the warning is %v", warning)
	}
}

// TestUtteranceThatCannotBeFinished is cut off by its gateway's end: it fails, and the session goes on elsewhere.
func TestUtteranceThatCannotBeFinished(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first)
	heard, err := session.Say(ctx, "One.", wavegate.WithUtteranceID("u1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Say(ctx, "Two.", wavegate.WithUtteranceID("u2")); err != nil {
		t.Fatal(err)
	}
	call.say(t, chunk("u1", 0, strings.Repeat("x", 48_000)))
	next[*wavegate.AudioChunk](t, ctx, session)
	draining := refusal(codes.Unavailable, "GATEWAY_DRAINING", "the gateway is shutting down")
	go call.finish(t, &wavegate.SessionEnded{
		Reason: speechv1.SessionEnded_REASON_DRAIN, Status: inStream(draining),
	}, draining.Err())
	other := accept(t, second.synthesis)
	other.recv(t)
	other.say(t, started("s-2"))
	_, err = heard.Wait(ctx)
	wantKind(t, err, wavegate.KindGatewayUnavailable)
	failed := next[*wavegate.UtteranceFailed](t, ctx, session)
	if !failed.GetRetryable() || failed.GetAudioSentDuration().AsDuration() != time.Second {
		t.Errorf("it told %v", failed)
	}
	next[*wavegate.SessionMoved](t, ctx, session)
	if text := other.recv(t); text.GetText().GetUtteranceId() != "u2" {
		t.Errorf("%v came", text)
	}
}

func TestMoveToAFreshConnection(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, gateway), gateway)
	call.say(t, goAway())
	// Behind the same address there may be another process, or this one, which takes nothing new on.
	refused := accept(t, gateway.synthesis)
	refused.recv(t)
	refused.end <- refusal(codes.Unavailable, "GATEWAY_DRAINING", "the gateway is shutting down").Err()
	other := accept(t, gateway.synthesis)
	other.recv(t)
	other.say(t, started("s-2"))
	next[*wavegate.SessionMoved](t, ctx, session)
}

func TestStays(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first, wavegate.WithoutMoving())
	call.say(t, goAway())
	draining := refusal(codes.Unavailable, "GATEWAY_DRAINING", "the gateway is shutting down")
	go call.finish(t, &wavegate.SessionEnded{
		Reason: speechv1.SessionEnded_REASON_DRAIN, Status: inStream(draining),
	}, draining.Err())
	next[*wavegate.GoAway](t, ctx, session)
	next[*wavegate.SessionEnded](t, ctx, session)
	_, err := session.Next(ctx)
	if failure := wantKind(t, err, wavegate.KindGatewayUnavailable); failure.Reason != "GATEWAY_DRAINING" {
		t.Errorf("the reason is %q", failure.Reason)
	}
	if len(second.synthesis) > 0 {
		t.Error("it moved all the same")
	}
}

// TestSettingsChangeWhileMoving opens the other session again, with the settings of now.
func TestSettingsChangeWhileMoving(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first)
	if _, err := session.Say(ctx, "One.", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	call.say(t, chunk("u1", 0, "a"))
	call.say(t, goAway())
	other := accept(t, second.synthesis)
	other.recv(t)
	other.say(t, started("s-2"))
	call.say(t, &wavegate.SettingsAck{
		UpdateId: "from-outside", State: speechv1.SettingsAck_STATE_APPLIED, SettingsRevision: 2,
		Settings: &speechv1.EffectiveSettings{Settings: &speechv1.EffectiveSettings_Synthesis{
			Synthesis: &wavegate.SynthesisSettings{Speed: new(1.5)},
		}},
	})
	call.say(t, completed("u1"))
	again := accept(t, second.synthesis)
	if start := again.recv(t).GetStart(); start.GetSettings().GetSpeed() != 1.5 {
		t.Errorf("it opens with %v", start)
	}
	again.say(t, started("s-3"))
	if moved := next[*wavegate.SessionMoved](t, ctx, session); moved.Started.GetSessionId() != "s-3" {
		t.Errorf("it told %+v", moved)
	}
}

func TestMoveTranscription(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := transcribe(t, ctx, connect(t, nil, first, second), first, wavegate.WithInitialAudioOffset(time.Second))
	second1 := make([]byte, 32_000) // one second
	for i := range second1 {
		second1[i] = 1
	}
	for range 3 {
		if err := session.SendAudio(ctx, second1); err != nil {
			t.Fatal(err)
		}
	}
	call.acked = 4
	at := func(offset float64) *durationpb.Duration {
		return durationpb.New(time.Duration(offset * float64(time.Second)))
	}
	call.say(t, listens{&wavegate.Transcript{
		SegmentId: "a", SegmentRevision: 1, Text: "one", FullText: "one", IsFinal: true, StartOffset: at(1), EndOffset: at(2.25),
	}})
	call.say(t, listens{&wavegate.Transcript{
		SegmentId: "b", SegmentRevision: 3, Text: "two", StartOffset: at(2.25), EndOffset: at(3),
	}})
	next[*wavegate.Transcript](t, ctx, session)
	next[*wavegate.Transcript](t, ctx, session)
	call.say(t, listens{goAway()})

	other := accept(t, second.transcribe)
	start := other.recv(t).GetStart()
	if offset := start.GetInitialAudioOffset().AsDuration(); offset != 2250*time.Millisecond {
		t.Errorf("it goes on at %v", offset)
	}
	other.say(t, listens{listening("s-2")})
	moved := next[*wavegate.SessionMoved](t, ctx, session)
	if moved.LostAudio != 0 || moved.Started.GetSessionId() != "s-2" {
		t.Errorf("it told %+v", moved)
	}
	total := 0
	for _, want := range []int{24_000, 32_000} { // the rest of the second second, and the third
		content := other.recv(t).GetAudio().GetContent()
		if len(content) != want {
			t.Errorf("%d bytes were sent again, not %d", len(content), want)
		}
		total += len(content)
	}
	// The open segment goes on under its name; what a final has said before does not come again.
	other.say(t, listens{&wavegate.Transcript{
		SegmentId: "x", SegmentRevision: 1, Text: "one", IsFinal: true, StartOffset: at(1), EndOffset: at(2.25),
	}})
	other.say(t, listens{&wavegate.Transcript{
		SegmentId: "a", SegmentRevision: 1, Text: "two three", FullText: "two three", IsFinal: true, StartOffset: at(2.25), EndOffset: at(4),
	}})
	final := next[*wavegate.Transcript](t, ctx, session)
	if final.GetSegmentId() != "b" || final.GetSegmentRevision() != 4 || final.GetFullText() != "one two three" {
		t.Errorf("the final is %v", final)
	}
	other.say(t, listens{&wavegate.Transcript{
		SegmentId: "b", SegmentRevision: 1, Text: "four", StartOffset: at(4), EndOffset: at(4.5),
	}})
	if later := next[*wavegate.Transcript](t, ctx, session); later.GetSegmentId() != "b.1" {
		t.Errorf("the next segment is %v", later)
	}
}

func TestOpensOnTheFirstThatTakesIt(t *testing.T) {
	ctx := testContext(t)
	second := newFake(t)
	client := connect(t, nil, &fakeGateway{target: "127.0.0.1:1"}, second)
	_, call := synthesize(t, ctx, client, second)
	if call == nil || client.Target() != second.target {
		t.Errorf("the target is %s", client.Target())
	}
}

func TestOpenTimeout(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	_, err := client.Synthesize(ctx, nil, wavegate.WithOpenTimeout(100*time.Millisecond))
	failure := wantKind(t, err, wavegate.KindDeadline)
	if want := fmt.Sprintf("the gateway at %s did not open the session in 100ms", gateway.target); failure.Message != want {
		t.Errorf("it tells %q", failure.Message)
	}
	call := accept(t, gateway.synthesis)
	call.recv(t)
	if end := call.recv(t); !end.GetEndSession().GetDiscard() {
		t.Errorf("the session that nobody waits for was left with %v", end)
	}
}

// TestResumeBehindOneName asks every gateway behind the name for the session.
func TestResumeBehindOneName(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	client, err := wavegate.NewClient("ipv4:"+first.target+","+second.target, wavegate.WithRoundRobin())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	calls := make(chan *synthesisCall)
	over := make(chan struct{})
	defer close(over)
	for _, gateway := range []*fakeGateway{first, second} {
		go func() {
			for {
				select {
				case call := <-gateway.synthesis:
					calls <- call
				case <-over:
					return
				}
			}
		}()
	}
	lost := make(chan struct{})
	go func() {
		call := <-calls
		call.recv(t)
		local := localAddress(call)
		call.say(t, started("s-1"))
		<-lost
		call.end <- status.Error(codes.Unavailable, "the network has failed")
		for again := range calls {
			again.recv(t)
			if localAddress(again) != local {
				again.end <- refusal(codes.NotFound, "SESSION_NOT_FOUND", "there is no live session").Err()
				continue
			}
			again.say(t, resumed("s-1", 1))
			return
		}
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	close(lost)
	next[*wavegate.SessionResumed](t, ctx, session)
}

// localAddress is the end of the gateway that a call came to.
func localAddress(call *synthesisCall) string {
	from, _ := peer.FromContext(call.stream.Context())
	return from.LocalAddr.String()
}

// TestLossWhileMoving loses the call where another session is about to take over.
func TestLossWhileMoving(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first)
	call.say(t, goAway())
	other := accept(t, second.synthesis)
	other.recv(t)
	first.cut()
	call.gone(t)
	other.say(t, started("s-2"))
	if moved := next[*wavegate.SessionMoved](t, ctx, session); moved.Started.GetSessionId() != "s-2" {
		t.Errorf("it told %+v", moved)
	}
	if _, err := session.Say(ctx, "Here.", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	if text := other.recv(t); text.GetText().GetText() != "Here." {
		t.Errorf("%v came", text)
	}
}

// TestMoveTwice goes on from a gateway that is about to go as well.
func TestMoveTwice(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first)
	call.say(t, goAway())
	other := accept(t, second.synthesis)
	other.recv(t)
	other.say(t, started("s-2"))
	next[*wavegate.SessionMoved](t, ctx, session)
	other.say(t, goAway())
	third := accept(t, first.synthesis)
	third.recv(t)
	third.say(t, started("s-3"))
	if moved := next[*wavegate.SessionMoved](t, ctx, session); moved.PreviousSessionID != "s-2" {
		t.Errorf("it told %+v", moved)
	}
}

// TestCloseWhileMoving leaves neither of the sessions behind.
func TestCloseWhileMoving(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	session, call := synthesize(t, ctx, connect(t, nil, first, second), first)
	if _, err := session.Say(ctx, "One.", wavegate.WithUtteranceID("u1")); err != nil {
		t.Fatal(err)
	}
	call.say(t, chunk("u1", 0, "a"))
	call.say(t, goAway())
	other := accept(t, second.synthesis)
	other.recv(t)
	other.say(t, started("s-2"))
	next[*wavegate.GoAway](t, ctx, session)
	if err := session.Close(); err != nil {
		t.Error(err)
	}
	for name, over := range map[string]*synthesisCall{"first": call, "second": other} {
		if err := over.gone(t); err != nil && status.Code(err) != codes.Canceled {
			t.Errorf("the %s session ended with %v", name, err)
		}
	}
}

// TestOggStays stays with OGG_OPUS, which would have to be cut between pages.
func TestOggStays(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	client := connect(t, nil, first, second)
	go func() {
		call := accept(t, first.transcribe)
		call.recv(t)
		opened := listening("s-1")
		opened.AudioFormat.Encoding = wavegate.OggOpus
		call.say(t, listens{opened})
		call.recv(t)
		call.say(t, listens{goAway()})
		call.finish(t, listens{ended(speechv1.SessionEnded_REASON_DRAIN)}, nil)
	}()
	session, err := client.Transcribe(ctx, nil, wavegate.WithEncoding(wavegate.OggOpus, 48_000))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.SendAudio(ctx, []byte("OggS")); err != nil {
		t.Fatal(err)
	}
	next[*wavegate.SessionEnded](t, ctx, session)
	if len(second.transcribe) > 0 {
		t.Error("it moved all the same")
	}
}

// TestOpusPacketsMove counts what was said by the packets' own durations.
func TestOpusPacketsMove(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	client := connect(t, nil, first, second)
	opened := listening("s-1")
	opened.AudioFormat.Encoding = wavegate.Opus
	proceed := make(chan struct{})
	go func() {
		call := accept(t, first.transcribe)
		call.recv(t)
		call.say(t, listens{opened})
		<-proceed
		call.say(t, listens{&wavegate.Transcript{SegmentId: "a", Text: "one", IsFinal: true, EndOffset: durationpb.New(50 * time.Millisecond)}})
		call.say(t, listens{goAway()})
	}()
	session, err := client.Transcribe(ctx, nil, wavegate.WithEncoding(wavegate.Opus, 48_000))
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := session.SendAudio(ctx, []byte{0xf8, 1, 2, 3}); err != nil { // 20 ms
			t.Fatal(err)
		}
	}
	close(proceed)
	other := accept(t, second.transcribe)
	if start := other.recv(t).GetStart(); start.GetInitialAudioOffset().AsDuration() != 40*time.Millisecond {
		t.Errorf("it goes on at %v", start.GetInitialAudioOffset().AsDuration())
	}
	other.say(t, listens{opened})
	next[*wavegate.SessionMoved](t, ctx, session)
	for range 2 {
		if content := other.recv(t).GetAudio().GetContent(); len(content) != 4 {
			t.Errorf("a packet came as % x", content)
		}
	}
}

// --- behind a balancer ---------------------------------------------------------------------------

// TestResumeTakesTheSameWay sends back what the balancer says of its way, and the newest of what it has said.
func TestResumeTakesTheSameWay(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	opening := make(chan *synthesisCall, 1)
	go func() {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.lead(t, "first")
		call.say(t, started("s-1"))
		opening <- call
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	call := <-opening
	if routes := call.routes(); len(routes) > 0 {
		t.Errorf("a new session asks for the way %v", routes)
	}
	for _, way := range []struct{ asked, told string }{
		{"first", ""}, {"first", "second"}, {"second", ""},
	} {
		call.end <- status.Error(codes.Unavailable, "the network has failed")
		call = accept(t, gateway.synthesis)
		call.recv(t)
		if routes := call.routes(); !slices.Equal(routes, []string{way.asked}) {
			t.Errorf("it asks for the way %v, not %q", routes, way.asked)
		}
		if way.told != "" {
			call.lead(t, way.told)
		}
		call.say(t, resumed("s-1", 1))
		next[*wavegate.SessionResumed](t, ctx, session)
	}
}

// TestLossBeforeTheAnswerTakesTheSameWay knows the way by then, as it knows the session.
func TestLossBeforeTheAnswerTakesTheSameWay(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	go func() {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		if err := call.stream.SendHeader(map[string][]string{
			"wavegate-session-id": {"s-7"}, "wavegate-route": {"its-own"},
		}); err != nil {
			t.Error(err)
		}
		call.end <- status.Error(codes.Unavailable, "the network has failed")
		again := accept(t, gateway.synthesis)
		again.recv(t)
		if routes := again.routes(); !slices.Equal(routes, []string{"its-own"}) {
			t.Errorf("it asks for the way %v", routes)
		}
		again.say(t, resumed("s-7", 1))
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = session.Close()
}

// TestEndFromOutsideTakesTheSameWay ends a session by another call where its own does not hear.
func TestEndFromOutsideTakesTheSameWay(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	proceed := make(chan struct{})
	defer close(proceed)
	go func() {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.lead(t, "its-own")
		call.ending.Store(true) // it stays open, as one does whose gateway has other things to do
		call.say(t, started("s-1"))
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Error(err)
	}
	closing := <-gateway.closed
	if routes := closing.metadata.Get("wavegate-route"); !slices.Equal(routes, []string{"its-own"}) {
		t.Errorf("it asks for the way %v", routes)
	}
	if request := closing.request; request.GetSessionId() != "s-1" || !request.GetDiscard() {
		t.Errorf("the session was ended with %v", request)
	}
}

// refuseAll says that the gateway shuts down, to each of so many calls.
func refuseAll(t *testing.T, gateway *fakeGateway, calls int) {
	for range calls {
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.end <- refusal(codes.Unavailable, "GATEWAY_DRAINING", "the gateway is shutting down").Err()
	}
}

// TestOpensAsSoonAsTheAddressLeadsElsewhere asks again: a balancer needs a moment to notice that a gateway shuts down.
func TestOpensAsSoonAsTheAddressLeadsElsewhere(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	go func() {
		refuseAll(t, gateway, 7) // twice at each of four times, but the last
		call := accept(t, gateway.synthesis)
		call.recv(t)
		call.say(t, started("s-1"))
	}()
	session, err := client.Synthesize(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session.ID() != "s-1" {
		t.Errorf("the session is %q", session.ID())
	}
	_ = session.Close()
}

// TestGivesUpWhereEveryGatewayShutsDown says in the end what the last one said.
func TestGivesUpWhereEveryGatewayShutsDown(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	client := connect(t, nil, first, second)
	refused := make(chan struct{}, 2)
	for _, gateway := range []*fakeGateway{first, second} {
		go func() {
			defer func() { refused <- struct{}{} }()
			refuseAll(t, gateway, 8)
		}()
	}
	_, err := client.Synthesize(ctx, nil)
	failure := wantKind(t, err, wavegate.KindGatewayUnavailable)
	if failure.Reason != "GATEWAY_DRAINING" {
		t.Errorf("the reason is %q", failure.Reason)
	}
	<-refused
	<-refused
	if len(first.synthesis)+len(second.synthesis) > 0 {
		t.Error("they were asked once more")
	}
}

// TestWaitingForAnotherGatewayEnds where nobody waits any more.
func TestWaitingForAnotherGatewayEnds(t *testing.T) {
	for name, give := range map[string]struct {
		up   func(*wavegate.Client, context.CancelFunc)
		kind wavegate.Kind
	}{
		"context": {func(_ *wavegate.Client, cancel context.CancelFunc) { cancel() }, wavegate.KindCancelled},
		"client":  {func(client *wavegate.Client, _ context.CancelFunc) { _ = client.Close() }, wavegate.KindSessionClosed},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			gateway := newFake(t)
			client := connect(t, nil, gateway)
			go func() {
				refuseAll(t, gateway, 6)
				give.up(client, cancel)
			}()
			_, err := client.Synthesize(ctx, nil)
			wantKind(t, err, give.kind)
		})
	}
}

// leaveGateway opens a session at the second gateway, where the first one shuts down.
func leaveGateway(t *testing.T, ctx context.Context, client *wavegate.Client, first, second *fakeGateway) {
	t.Helper()
	go refuseAll(t, first, 1)
	synthesize(t, ctx, client, second)
	if client.Target() != second.target {
		t.Errorf("the target is %s", client.Target())
	}
}

// TestCallsThatAreNoSessionAreFinishedWhereTheyAre though the client has left that gateway for its sessions. Their
// connection is closed behind them.
func TestCallsThatAreNoSessionAreFinishedWhereTheyAre(t *testing.T) {
	for name, call := range map[string]func(context.Context, *wavegate.Client) error{
		"speech": func(ctx context.Context, client *wavegate.Client) error {
			speech, err := client.SynthesizeOnce(ctx, "Hello.", nil)
			if err == nil && string(speech.Audio) != "abcd" {
				err = fmt.Errorf("the audio is %q", speech.Audio)
			}
			return err
		},
		"unary": func(ctx context.Context, client *wavegate.Client) error {
			_, err := client.TranscribeOnce(ctx, []byte("RIFF"), nil)
			return err
		},
		"trace": func(ctx context.Context, client *wavegate.Client) error {
			spans, err := client.GetSessionTrace(ctx, "s-1")
			if err == nil && len(spans) != 2 {
				err = fmt.Errorf("the spans are %v", spans)
			}
			return err
		},
		"settings": func(ctx context.Context, client *wavegate.Client) error {
			stream, err := client.SettingsStream(ctx)
			if err != nil {
				return err
			}
			defer stream.Close()
			_, err = stream.UpdateSynthesis(ctx, "s-1", nil, wavegate.WithReset("speed"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			first, second := newFake(t), newFake(t)
			running, proceed := make(chan struct{}), make(chan struct{})
			wait := func(ctx context.Context) error {
				close(running)
				select {
				case <-proceed:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			first.once = func(
				_ *speechv1.SynthesizeRequest, stream grpc.ServerStreamingServer[speechv1.SynthesizeResponse],
			) error {
				say := func(audio string) error {
					return stream.Send(&speechv1.SynthesizeResponse{
						Event: &speechv1.SynthesizeResponse_Audio{Audio: chunk("u", 0, audio)},
					})
				}
				return errors.Join(say("ab"), wait(stream.Context()), say("cd"), stream.Send(&speechv1.SynthesizeResponse{
					Event: &speechv1.SynthesizeResponse_UtteranceCompleted{UtteranceCompleted: completed("u")},
				}))
			}
			first.recognize = func(ctx context.Context, _ *speechv1.RecognizeRequest) (*speechv1.RecognizeResponse, error) {
				return &speechv1.RecognizeResponse{}, wait(ctx)
			}
			first.trace = func(
				_ *speechv1.GetTraceRequest, stream grpc.ServerStreamingServer[speechv1.GetTraceResponse],
			) error {
				span := &speechv1.GetTraceResponse{Spans: []*speechv1.TraceSpan{{}}}
				return errors.Join(stream.Send(span), wait(stream.Context()), stream.Send(span))
			}
			go func() {
				select {
				case control := <-first.control:
					request := control.recv(t)
					if wait(control.stream.Context()) == nil {
						_ = control.stream.Send(&speechv1.UpdateSettingsResponse{
							SessionId: "s-1", Event: &speechv1.UpdateSettingsResponse_Ack{Ack: &wavegate.SettingsAck{
								UpdateId: request.GetUpdateId(), State: speechv1.SettingsAck_STATE_APPLIED,
							}},
						})
					}
				case <-ctx.Done():
				}
			}()
			client := connect(t, nil, first, second)
			done := make(chan error, 1)
			go func() { done <- call(ctx, client) }()
			<-running
			leaveGateway(t, ctx, client, first, second)
			close(proceed)
			if err := <-done; err != nil {
				t.Error(err)
			}
			first.awaitConnections(t, 0)
		})
	}
}

// TestLostCallOfALeftGateway is resumed there over the connection that it had, though nothing else uses that any more.
func TestLostCallOfALeftGateway(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	client := connect(t, nil, first, second)
	session, call := synthesize(t, ctx, client, first, wavegate.WithoutMoving())
	// Another session leaves that gateway.
	go refuseAll(t, first, 1)
	synthesize(t, ctx, client, second)
	call.end <- status.Error(codes.Unavailable, "the network has failed")
	again := accept(t, first.synthesis)
	if start := again.recv(t).GetStart(); start.GetResumeSessionId() != "s-1" {
		t.Errorf("it came with %v", start)
	}
	again.say(t, resumed("s-1", 1))
	next[*wavegate.SessionResumed](t, ctx, session)
}
