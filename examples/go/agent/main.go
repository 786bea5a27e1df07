// Command agent is a voice agent without a microphone: it listens to a caller, answers each turn with a toy reply, and stops
// when the caller speaks over it:
//
//	go run ./agent
//
// The caller is played by the gateway's own voice: a first question, and an interruption while the answer is spoken. A real
// agent has a microphone in the place of caller, a loudspeaker in the place of the clock in play, and a language
// model in the place of reply.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	wavegate "example.com/wavegate/clients/go"
)

const listeningRate = 16_000 // samples a second

func main() {
	target := flag.String("target", "", "the gateway (default: WAVEGATE_TARGET, or 127.0.0.1:50051)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *target); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, target string) error {
	client, err := wavegate.NewClient(target)
	if err != nil {
		return err
	}
	defer client.Close()
	question, err := caller(ctx, client, "Hello there. How are you today?")
	if err != nil {
		return err
	}
	interruption, err := caller(ctx, client, "Stop.")
	if err != nil {
		return err
	}
	ears, err := client.Transcribe(ctx, &wavegate.TranscriptionSettings{
		LanguageCode: new("en"), VoiceActivityEvents: new(true),
	}, wavegate.WithEncoding(wavegate.Linear16, listeningRate))
	if err != nil {
		return err
	}
	defer ears.Close()
	mouth, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{VoiceId: new("avery")})
	if err != nil {
		return err
	}
	defer mouth.Close()
	a := &agent{mouth: mouth, speaking: make(chan struct{})}

	heard := make(chan error, 1)
	go func() { heard <- a.listen(ctx, ears) }()

	// The caller asks, waits until the agent speaks, and speaks over it.
	say := func(audio []byte) error {
		silence := make([]byte, listeningRate) // half a second
		err := ears.StreamAudio(ctx, io.MultiReader(bytes.NewReader(audio), bytes.NewReader(silence)), wavegate.WithPace())
		if err != nil {
			return err
		}
		_, err = ears.Finalize(ctx) // which a real agent leaves to the pauses of its caller
		return err
	}
	if err := say(question); err != nil {
		return err
	}
	select {
	case <-a.speaking:
	case <-time.After(10 * time.Second):
		return errors.New("the agent says nothing")
	}
	if err := say(interruption); err != nil {
		return err
	}
	if err := ears.End(ctx); err != nil {
		return err
	}
	if err := <-heard; err != nil {
		return err
	}
	a.turns.Wait()
	return mouth.Finish(ctx)
}

// caller makes the audio of what the caller says.
func caller(ctx context.Context, client *wavegate.Client, text string) ([]byte, error) {
	speech, err := client.SynthesizeOnce(ctx, text, nil, wavegate.WithEncoding(wavegate.Linear16, listeningRate))
	if err != nil {
		return nil, err
	}
	return speech.Audio, nil
}

// agent answers what it hears.
type agent struct {
	mouth    *wavegate.SynthesisSession
	speaking chan struct{} // closed once a second of the first answer was heard
	began    sync.Once
	turns    sync.WaitGroup

	mu     sync.Mutex
	answer *wavegate.Utterance // that is being spoken
	played time.Duration       // how much of it
}

// listen hears the caller to the end.
func (a *agent) listen(ctx context.Context, ears *wavegate.TranscriptionSession) error {
	for event, err := range ears.Events(ctx) {
		if err != nil {
			return err
		}
		switch event := event.(type) {
		case *wavegate.SpeechStarted:
			if err := a.interrupt(ctx); err != nil {
				return err
			}
		case *wavegate.Transcript:
			if !event.GetIsFinal() || strings.TrimSpace(event.GetText()) == "" {
				continue
			}
			fmt.Printf("caller: %s\n", event.GetText())
			if err := a.say(ctx, reply(event.GetText())); err != nil {
				return err
			}
		}
	}
	return nil
}

// reply is where a language model would be: it brings the words of an answer one after the other.
func reply(heard string) iter.Seq[string] {
	answer := "You said: " + heard + " " + strings.Repeat("Here is a story, of which nobody wants to hear the end. ", 4)
	if strings.Contains(strings.ToLower(heard), "stop") {
		answer = "All right."
	}
	return func(yield func(string) bool) {
		for word := range strings.FieldsSeq(answer) {
			if !yield(word + " ") {
				return
			}
		}
	}
}

// say speaks an answer, in the place of the one before it.
func (a *agent) say(ctx context.Context, text iter.Seq[string]) error {
	if err := a.interrupt(ctx); err != nil {
		return err
	}
	answer, err := a.mouth.SaySeq(ctx, text)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.answer, a.played = answer, 0
	a.mu.Unlock()
	a.turns.Go(func() { a.play(ctx, answer) })
	return nil
}

// play takes the audio of an answer as fast as it would be heard.
func (a *agent) play(ctx context.Context, answer *wavegate.Utterance) {
	bytesPerSecond := 2 * time.Duration(a.mouth.Started().GetAudioFormat().GetSampleRateHertz())
	for audio, err := range answer.Audio(ctx) {
		if err != nil {
			fmt.Printf("agent:  cannot speak: %v\n", err)
			return
		}
		length := time.Duration(len(audio)) * time.Second / bytesPerSecond
		time.Sleep(length)
		a.mu.Lock()
		a.played += length
		if a.played >= time.Second {
			a.began.Do(func() { close(a.speaking) })
		}
		a.mu.Unlock()
	}
	outcome, err := answer.Wait(ctx)
	switch {
	case err != nil:
		fmt.Printf("agent:  cannot speak: %v\n", err)
	case outcome.Cancelled != nil:
		fmt.Printf("agent:  (interrupted; the caller has heard %q)\n", outcome.Cancelled.GetSpokenText())
	default:
		a.began.Do(func() { close(a.speaking) }) // a short one
		fmt.Printf("agent:  (has spoken for %v)\n", outcome.Completed.GetMetrics().GetAudioDuration().AsDuration())
	}
	a.mu.Lock()
	if a.answer == answer {
		a.answer = nil
	}
	a.mu.Unlock()
}

// interrupt stops what is being spoken, if anything is.
func (a *agent) interrupt(ctx context.Context) error {
	a.mu.Lock()
	answer, played := a.answer, a.played
	a.answer = nil
	a.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer.Cancel(ctx, wavegate.WithPlaybackOffset(played))
}
