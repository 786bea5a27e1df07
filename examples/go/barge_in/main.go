// Command barge_in interrupts a story after a second of it was heard, tells what the listener has heard of it, and answers:
//
//	go run ./barge_in
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	wavegate "example.com/wavegate/clients/go"
)

func main() {
	target := flag.String("target", "", "the gateway (default: WAVEGATE_TARGET, or 127.0.0.1:50051)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bargeIn(ctx, *target); err != nil {
		log.Fatal(err)
	}
}

func bargeIn(ctx context.Context, target string) error {
	client, err := wavegate.NewClient(target)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{VoiceId: new("magnus")})
	if err != nil {
		return err
	}
	defer session.Close()

	story, err := session.Say(ctx, strings.Repeat("Once upon a time there was a very long story. ", 20))
	if err != nil {
		return err
	}
	format := session.Started().GetAudioFormat()
	bytesPerSecond := 2 * time.Duration(format.GetSampleRateHertz())
	var heard time.Duration
	for audio, err := range story.Audio(ctx) {
		if err != nil {
			return err
		}
		// Here a program plays it. What it has not read yet waits in the gateway, where the interruption drops it.
		heard += time.Duration(len(audio)) * time.Second / bytesPerSecond
		if heard >= time.Second {
			if err := story.Cancel(ctx, wavegate.WithPlaybackOffset(heard)); err != nil {
				return err
			}
		}
	}
	outcome, err := story.Wait(ctx)
	if err != nil {
		return err
	}
	if cancelled := outcome.Cancelled; cancelled != nil {
		fmt.Printf("interrupted after %v (%v)\n", heard, cancelled.GetMethod())
		fmt.Printf("heard:     %q (%v)\n", cancelled.GetSpokenText(), cancelled.GetEstimateSource())
		fmt.Printf("not heard: %d characters\n", len([]rune(cancelled.GetRemainingText())))
	}
	answer, err := session.Say(ctx, "Yes? What can I do for you?")
	if err != nil {
		return err
	}
	audio, err := answer.ReadAll(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("answer:    %.2f s of audio\n", float64(len(audio))/2/float64(format.GetSampleRateHertz()))
	return session.Finish(ctx)
}
