package wavegate_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
)

func TestListen(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := transcribe(t, ctx, connect(t, nil, gateway), gateway)
	samples := bytes.Repeat([]byte{1, 2}, 4000)
	buffer := slices.Clone(samples)
	recorded := time.Unix(1_700_000_000, 0)
	if err := session.SendAudioAt(ctx, buffer, recorded); err != nil {
		t.Fatal(err)
	}
	clear(buffer) // which is the caller's own again
	if audio := call.recv(t).GetAudio(); !bytes.Equal(audio.GetContent(), samples) || !audio.GetCaptureTime().AsTime().Equal(recorded) {
		t.Error("other audio came")
	}
	go func() {
		request := call.recv(t).GetFinalize()
		call.say(t, listens{&wavegate.Transcript{SegmentId: "a", Text: "hel"}})
		call.say(t, listens{&wavegate.Transcript{
			SegmentId: "a", Text: "hello", IsFinal: true, FinalizeId: request.GetFinalizeId(),
		}})
	}()
	final, err := session.Finalize(ctx)
	if err != nil || final.GetText() != "hello" {
		t.Errorf("the final is %v, %v", final, err)
	}
	go func() {
		call.recv(t)
		call.finish(t, listens{ended(speechv1.SessionEnded_REASON_CLIENT_END)}, nil)
	}()
	if err := session.End(ctx); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for transcript, err := range session.Finals(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, transcript.GetText())
	}
	if !slices.Equal(texts, []string{"hello"}) {
		t.Errorf("the finals are %q", texts)
	}
}

func TestStreamAudio(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := transcribe(t, ctx, connect(t, nil, gateway), gateway)
	samples := bytes.Repeat([]byte{1, 2}, 20_000)
	if err := session.StreamAudio(ctx, bytes.NewReader(samples)); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("the microphone has failed")
	if err := session.StreamAudio(ctx, iotest.ErrReader(mine)); !errors.Is(err, mine) {
		t.Errorf("the error is %v", err)
	}
	if _, err := io.Copy(session.Writer(ctx), bytes.NewReader(samples)); err != nil {
		t.Fatal(err)
	}
	var received []byte
	for len(received) < 2*len(samples) {
		received = append(received, call.recv(t).GetAudio().GetContent()...)
	}
	if !bytes.Equal(received, append(slices.Clone(samples), samples...)) {
		t.Error("other audio came")
	}
	if err := session.StreamAudio(ctx, bytes.NewReader(samples[:1000]), wavegate.WithPace()); err != nil {
		t.Fatal(err)
	}
}

func TestDiscard(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	session, call := transcribe(t, ctx, connect(t, nil, gateway), gateway)
	go func() {
		if !call.recv(t).GetEndSession().GetDiscard() {
			t.Error("it is no discard")
		}
		call.finish(t, listens{ended(speechv1.SessionEnded_REASON_CLIENT_END)}, nil)
	}()
	if err := session.Discard(ctx); err != nil {
		t.Fatal(err)
	}
	if err := session.Finish(ctx); err != nil {
		t.Error(err)
	}
	wantKind(t, session.SendAudio(ctx, []byte{0, 0}), wavegate.KindSessionClosed)
}
