package wavegate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"time"

	wavegate "example.com/wavegate/clients/go"
)

// Speaks one utterance, and plays it while it is made.
func Example() {
	ctx := context.Background()
	client, err := wavegate.NewClient("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	session, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{VoiceId: new("magnus")})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	utterance, err := session.Say(ctx, "Good morning. What can I do for you?")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, utterance.Reader(ctx)); err != nil {
		log.Fatal(err)
	}
	if err := session.Finish(ctx); err != nil {
		log.Fatal(err)
	}
}

// Speaks what a language model writes while it writes it, until the listener interrupts.
func ExampleSynthesisSession_SayFunc() {
	var (
		ctx     context.Context
		session *wavegate.SynthesisSession
		stream  func(context.Context) iter.Seq2[string, error] // of the model's tokens
	)
	utterance, err := session.SayFunc(ctx, stream)
	if err != nil {
		log.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { // the listener interrupts
		if err := utterance.Cancel(ctx, wavegate.WithPlaybackOffset(800*time.Millisecond)); err != nil {
			log.Print(err)
		}
	})
	for audio, err := range utterance.Audio(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(audio), "bytes to play")
	}
	outcome, err := utterance.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if outcome.Cancelled != nil {
		fmt.Println("heard:", outcome.Cancelled.GetSpokenText())
	}
}

// Sends audio as it is recorded, and prints words while they are spoken.
func ExampleClient_Transcribe() {
	var (
		ctx        context.Context
		client     *wavegate.Client
		microphone io.Reader
	)
	session, err := client.Transcribe(ctx, &wavegate.TranscriptionSettings{LanguageCode: new("en")})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	go func() {
		if err := errors.Join(session.StreamAudio(ctx, microphone), session.End(ctx)); err != nil {
			log.Print(err)
		}
	}()
	for transcript, err := range session.Transcripts(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(transcript.GetIsFinal(), transcript.GetText())
	}
}

// Changes the settings of sessions that run elsewhere.
func ExampleClient_SettingsStream() {
	var (
		ctx    context.Context
		client *wavegate.Client
	)
	control, err := client.SettingsStream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer control.Close()
	for live, err := range client.ListSessions(ctx, map[string]string{"team": "a"}) {
		if err != nil {
			log.Fatal(err)
		}
		ack, err := control.UpdateSynthesis(ctx, live.GetSessionId(), &wavegate.SynthesisSettings{Speed: new(1.25)})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ack.GetState(), ack.GetSettingsRevision())
	}
}

// Decides by the kind of an error.
func ExampleError() {
	var (
		ctx    context.Context
		client *wavegate.Client
	)
	_, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{Speed: new(9.0)})
	var failure *wavegate.Error
	if errors.As(err, &failure) {
		switch failure.Kind {
		case wavegate.KindInvalidRequest:
			fmt.Println(failure.FieldViolations)
		case wavegate.KindCapacity:
			fmt.Println("again in", failure.RetryDelay)
		default:
			fmt.Println(failure, failure.Retryable())
		}
	}
}
