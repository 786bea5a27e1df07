package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	wavegate "example.com/wavegate/clients/go"
	"example.com/wavegate/examples/go/internal/gateway"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestService(t *testing.T) {
	target := gateway.Start(t)
	exported := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	defer func() { _ = provider.Shutdown(context.Background()) }()
	client, err := wavegate.NewClient(target)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	service := httptest.NewServer(handler(client))
	defer service.Close()

	response, err := http.Get(service.URL + "/speak?text=Hello+there.")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || response.StatusCode != http.StatusOK || !strings.HasPrefix(string(whole), "RIFF") {
		t.Fatalf("it answers %s with %d bytes, %v", response.Status, len(whole), err)
	}

	t.Run("one trace", func(t *testing.T) {
		traceID := response.Header.Get("X-Trace-Id")
		var request tracetest.SpanStub
		for _, span := range exported.GetSpans() {
			if span.SpanKind == trace.SpanKindServer {
				request = span
			}
		}
		if request.SpanContext.TraceID().String() != traceID {
			t.Fatalf("the request is in the trace %s, the speech in %s", request.SpanContext.TraceID(), traceID)
		}
		// From the request over the call to the utterance and its last chunk.
		limit := time.Now().Add(30 * time.Second)
		for {
			spans, err := client.GetTrace(context.Background(), traceID)
			call, utterance, chunks := "", "", 0
			for _, span := range spans {
				if span.GetParentSpanId() == request.SpanContext.SpanID().String() && span.GetParentIsRemote() {
					call = span.GetSpanId()
				}
			}
			for _, span := range spans {
				if strings.HasPrefix(span.GetName(), "text_to_speech") && span.GetParentSpanId() == call {
					utterance = span.GetSpanId()
				}
			}
			for _, span := range spans {
				if span.GetName() == "chunk.out" && span.GetParentSpanId() == utterance {
					chunks++
				}
			}
			if err == nil && call != "" && utterance != "" && chunks > 0 {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("of %d spans: call %q, utterance %q, %d chunks, %v", len(spans), call, utterance, chunks, err)
			}
			time.Sleep(20 * time.Millisecond) // a span is there once it has ended
		}
	})
	t.Run("text as it comes", func(t *testing.T) {
		text, writer := io.Pipe()
		go func() {
			for _, word := range []string{"Hello ", "there."} {
				_, _ = io.WriteString(writer, word)
			}
			_ = writer.Close()
		}()
		response, err := http.Post(service.URL+"/speak", "text/plain", text)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if audio, err := io.ReadAll(response.Body); err != nil || string(audio) != string(whole) {
			t.Errorf("it answers %s with %d bytes, not %d, %v", response.Status, len(audio), len(whole), err)
		}
	})
	t.Run("a caller that hangs up", func(t *testing.T) {
		ctx, hangUp := context.WithCancel(context.Background())
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, service.URL+"/speak",
			strings.NewReader(strings.Repeat("A very long story. ", 500)))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		hangUp()
		if _, err := io.ReadAll(response.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("reading gives %v", err)
		}
		for limit := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			open := 0
			for range client.ListSessions(context.Background(), nil) {
				open++
			}
			if open == 0 {
				break
			}
			if time.Now().After(limit) {
				t.Fatal("the session is still open")
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		response, err := http.Get(service.URL + "/speak?text=Hello&voice=nobody")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("it answers %s", response.Status)
		}
	})
}
