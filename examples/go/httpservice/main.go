// Command httpservice is an HTTP service that speaks: it streams the audio of a text, as WAV, while it is made.
//
//	go run ./httpservice
//	curl -N 'http://127.0.0.1:8080/speak?text=Hello+there.' > hello.wav
//	some-language-model | curl -N -T - http://127.0.0.1:8080/speak > hello.wav
//
// In a browser, http://127.0.0.1:8080/speak?text=Hello+there. plays it. A caller that hangs up ends the speech, at the gateway
// too.
//
// It has an OpenTelemetry of its own, and the gateway's spans are below those of its requests: with
// OTEL_EXPORTER_OTLP_ENDPOINT set here and at the gateway, one trace goes from the HTTP request to the last chunk of audio.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"iter"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	wavegate "example.com/wavegate/clients/go"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const sampleRate = 24_000

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "where to serve HTTP")
	target := flag.String("target", "", "the gateway (default: WAVEGATE_TARGET, or 127.0.0.1:50051)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *listen, *target); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, listen, target string) error {
	telemetry, err := startTelemetry(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = telemetry.Shutdown(context.WithoutCancel(ctx)) }() // which sends what is still here
	client, err := wavegate.NewClient(target)
	if err != nil {
		return err
	}
	defer client.Close()
	server := &http.Server{Addr: listen, Handler: handler(client), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(patient)
	}()
	log.Printf("serving http://%s/speak?text=Hello, speech from %s", listen, client.Target())
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// startTelemetry sends spans to where OTEL_EXPORTER_OTLP_ENDPOINT says; without it they go nowhere.
func startTelemetry(ctx context.Context) (*sdktrace.TracerProvider, error) {
	otel.SetTextMapPropagator(propagation.TraceContext{}) // a caller's own trace goes on here
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "speech-over-http")),
		resource.WithFromEnv()) // OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
	if err != nil {
		return nil, err
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about)}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return nil, err
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	provider := sdktrace.NewTracerProvider(options...)
	otel.SetTracerProvider(provider)
	return provider, nil
}

func handler(client *wavegate.Client) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/speak", func(w http.ResponseWriter, r *http.Request) { speak(client, w, r) })
	return otelhttp.NewHandler(mux, "speak")
}

// speak answers with the audio of `text`, or of the request's body while that comes. The session has the request's context, so
// the gateway's spans are below that of the request, and a caller that hangs up ends it.
func speak(client *wavegate.Client, w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	span := trace.SpanFromContext(ctx)
	began := time.Now()
	settings := &wavegate.SynthesisSettings{}
	if voice := r.FormValue("voice"); voice != "" {
		settings.VoiceId = &voice
	}
	// The text may still come while audio goes out.
	_ = http.NewResponseController(w).EnableFullDuplex()
	session, err := client.Synthesize(ctx, settings, wavegate.WithEncoding(wavegate.WAV, sampleRate))
	if err != nil {
		fail(w, span, err)
		return
	}
	defer session.Close()
	span.SetAttributes(attribute.String("speech.session.id", session.ID()))

	var utterance *wavegate.Utterance
	if text := r.FormValue("text"); text != "" {
		utterance, err = session.Say(ctx, text)
	} else {
		utterance, err = session.SaySeq2(ctx, words(r.Body))
	}
	if err != nil {
		fail(w, span, err)
		return
	}
	begun := false
	for audio, err := range utterance.Audio(ctx) {
		if err != nil && !begun {
			fail(w, span, err)
			return
		}
		if err != nil { // the status has gone out: all that is left is to break the answer off
			span.SetStatus(codes.Error, err.Error())
			panic(http.ErrAbortHandler)
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "audio/wav")
			w.Header().Set("X-Trace-Id", session.Started().GetTraceId())
			span.AddEvent("first audio", trace.WithAttributes(attribute.Int64("elapsed_ms", time.Since(began).Milliseconds())))
		}
		if _, err := w.Write(audio); err != nil {
			return // the caller has hung up
		}
		_ = http.NewResponseController(w).Flush()
	}
	if !begun {
		w.WriteHeader(http.StatusNoContent) // nothing but blanks
	}
	if err := session.Finish(ctx); err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
}

// fail tells a failure in the words of HTTP.
func fail(w http.ResponseWriter, span trace.Span, err error) {
	span.SetStatus(codes.Error, err.Error())
	code := http.StatusBadGateway
	var failure *wavegate.Error
	if errors.As(err, &failure) {
		switch failure.Kind {
		case wavegate.KindInvalidRequest, wavegate.KindArgument:
			code = http.StatusBadRequest
		case wavegate.KindCapacity:
			code = http.StatusTooManyRequests
		case wavegate.KindGatewayUnavailable, wavegate.KindConnectionLost:
			code = http.StatusServiceUnavailable
		case wavegate.KindDeadline:
			code = http.StatusGatewayTimeout
		}
		if failure.RetryDelay > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(failure.RetryDelay.Seconds()+1)))
		}
	}
	http.Error(w, err.Error(), code)
}

// words gives the words of a text with the blanks behind them, as they come.
func words(text io.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		reader := bufio.NewReader(text)
		for {
			word, err := reader.ReadString(' ')
			if word = strings.ReplaceAll(word, "\n", " "); word != "" && !yield(word, nil) {
				return
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield("", err)
				return
			}
		}
	}
}
