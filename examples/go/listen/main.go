// Command listen transcribes a WAV file (16-bit samples, one channel) at the speed at which it was spoken, and prints what it
// hears as it hears it:
//
//	go run ./listen hello.wav
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	wavegate "example.com/wavegate/clients/go"
	"example.com/wavegate/examples/go/internal/wav"
)

func main() {
	language := flag.String("language", "en", "the language that is spoken")
	target := flag.String("target", "", "the gateway (default: WAVEGATE_TARGET, or 127.0.0.1:50051)")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: go run ./listen FILE.wav")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := listen(ctx, *target, *language, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func listen(ctx context.Context, target, language, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	format, samples, err := wav.Open(file)
	if err != nil {
		return err
	}
	client, err := wavegate.NewClient(target)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.Transcribe(ctx, &wavegate.TranscriptionSettings{LanguageCode: &language},
		wavegate.WithAudioFormat(format))
	if err != nil {
		return err
	}
	defer session.Close()

	sent := make(chan error, 1)
	go func() {
		err := session.StreamAudio(ctx, samples, wavegate.WithPace())
		sent <- errors.Join(err, session.End(ctx))
	}()
	for transcript, err := range session.Transcripts(ctx) {
		if err != nil {
			return err
		}
		kind := "partial"
		if transcript.GetIsFinal() {
			kind = "final"
		}
		fmt.Printf("%6.2f s  %-8s %s\n", transcript.GetEndOffset().AsDuration().Seconds(), kind, transcript.GetText())
	}
	return <-sent
}
