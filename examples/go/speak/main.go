// Command speak speaks a text into a WAV file:
//
//	go run ./speak -o hello.wav "Hello there. How are you?"
//
// Without a text it speaks its standard input, word by word as it comes, as it would a language model's tokens:
//
//	echo "Hello there." | go run ./speak -o hello.wav
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"os/signal"
	"strings"

	wavegate "example.com/wavegate/clients/go"
	"example.com/wavegate/examples/go/internal/wav"
)

func main() {
	output := flag.String("o", "speech.wav", "the WAV file to write")
	voice := flag.String("voice", "magnus", "the voice")
	target := flag.String("target", "", "the gateway (default: WAVEGATE_TARGET, or 127.0.0.1:50051)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := speak(ctx, *target, *voice, *output, strings.Join(flag.Args(), " ")); err != nil {
		log.Fatal(err)
	}
}

func speak(ctx context.Context, target, voice, output, text string) error {
	client, err := wavegate.NewClient(target)
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{VoiceId: &voice})
	if err != nil {
		return err
	}
	defer session.Close()

	var utterance *wavegate.Utterance
	if text != "" {
		utterance, err = session.Say(ctx, text)
	} else {
		utterance, err = session.SaySeq2(ctx, words(os.Stdin))
	}
	if err != nil {
		return err
	}
	samples, err := utterance.ReadAll(ctx)
	if err != nil {
		return err
	}
	outcome, err := utterance.Wait(ctx)
	if err != nil {
		return err
	}
	metrics := outcome.Completed.GetMetrics()
	fmt.Printf("%s: %v of audio, the first of it after %v\n",
		output, metrics.GetAudioDuration().AsDuration(), metrics.GetTimeToFirstAudio().AsDuration())
	if err := wav.Write(output, session.Started().GetAudioFormat(), samples); err != nil {
		return err
	}
	return session.Finish(ctx)
}

// words gives the words of a text with the blanks behind them, as they come.
func words(text io.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		scanner := bufio.NewScanner(text)
		scanner.Split(bufio.ScanWords)
		for scanner.Scan() {
			if !yield(scanner.Text()+" ", nil) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			yield("", err)
		}
	}
}
