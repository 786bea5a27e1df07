package wavegate_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		target string
		tls    bool
		says   string // empty: it is written right
	}{
		{"127.0.0.1:50051", false, ""},
		{"gateway.internal:50051", false, ""},
		{"[::1]:50051", false, ""},
		{"unix:/run/wavegate.sock", false, ""},
		{"dns:///gateway.internal:50051", false, ""},
		{"ipv4:127.0.0.1:1,127.0.0.1:2", false, ""},
		{"gateway.internal", true, ""},
		{" ", false, "write HOST:PORT"},
		{"gateway.internal", false, "names no port: write gateway.internal:50051"},
		{"http://gateway.internal:50051/", false, "no http:// in front: write gateway.internal:50051"},
		{"https://gateway.internal", false, "write gateway.internal:443, and WithTLS"},
		{"::1", false, "write [::1]:PORT"},
		{"gateway.internal:http", false, `"http" is no port`},
		{"gateway.internal:0", false, `"0" is no port`},
		{"gateway.internal:70000", false, `"70000" is no port`},
		{"some where:1", false, "is no HOST:PORT"},
		{":50051", false, "is no HOST:PORT"},
		{"[::1:50051", false, "is no HOST:PORT"},
	} {
		var options []wavegate.Option
		if c.tls {
			options = append(options, wavegate.WithTLS(nil))
		}
		client, err := wavegate.NewClient(c.target, options...)
		if c.says == "" {
			if err != nil {
				t.Errorf("%q: %v", c.target, err)
			} else {
				_ = client.Close()
			}
			continue
		}
		if failure := wantKind(t, err, wavegate.KindArgument); !strings.Contains(failure.Message, c.says) {
			t.Errorf("%q: %q does not say %q", c.target, failure.Message, c.says)
		}
	}
}

func TestDefaultTarget(t *testing.T) {
	t.Setenv("WAVEGATE_TARGET", "")
	client, err := wavegate.NewClient("")
	if err != nil || client.Target() != wavegate.DefaultTarget {
		t.Errorf("%v", err)
	}
	_ = client.Close()
	t.Setenv("WAVEGATE_TARGET", "gateway.internal:1234")
	client, err = wavegate.NewClient("")
	if err != nil || client.Target() != "gateway.internal:1234" {
		t.Errorf("%v", err)
	}
	_ = client.Close()
}

func TestBadOptions(t *testing.T) {
	for name, option := range map[string]wavegate.Option{
		"token with a line break":  wavegate.WithToken("abc\r\nx-evil: 1"),
		"token with an umlaut":     wavegate.WithToken("schlüssel"),
		"metadata with a break":    wavegate.WithMetadata(map[string]string{"x": "a\nb"}),
		"metadata without a name":  wavegate.WithMetadata(map[string]string{"": "a"}),
		"metadata with a bad name": wavegate.WithMetadata(map[string]string{"a b": "a"}),
		"roots that are none":      wavegate.WithRootCertificates([]byte("nothing")),
		"certificate that is none": wavegate.WithClientCertificate([]byte("nothing"), []byte("nothing")),
	} {
		_, err := wavegate.NewClient("127.0.0.1:1", option)
		if failure := wantKind(t, err, wavegate.KindArgument); strings.Contains(failure.Message, "evil") {
			t.Errorf("%s: it repeats the token: %s", name, failure.Message)
		}
	}
	client, err := wavegate.NewClient("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Synthesize(testContext(t), nil, wavegate.WithResumeWindow(-time.Second))
	wantKind(t, err, wavegate.KindArgument)
}

func TestWhatGoesWithEveryCall(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, []wavegate.Option{
		wavegate.WithToken("secret"), wavegate.WithMetadata(map[string]string{"x-team": "a"}),
	}, gateway)
	traceID, _ := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	spanID, _ := trace.SpanIDFromHex("b7ad6b7169203331")
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled,
	}))
	_, call := synthesize(t, ctx, client, gateway)
	check := func(metadata map[string][]string) {
		t.Helper()
		for key, want := range map[string]string{
			"authorization": "Bearer secret", "x-team": "a",
			"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		} {
			if got := metadata[key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s is %q", key, got)
			}
		}
	}
	check(call.metadata)
	if _, has := call.stream.Context().Deadline(); has {
		t.Error("the stream has a deadline")
	}
	// A resumed call is of the same trace.
	call.end <- status.Error(codes.Unavailable, "the network has failed")
	check(accept(t, gateway.synthesis).metadata)
}

func TestTraceContextSwitchedOff(t *testing.T) {
	gateway := newFake(t)
	ctx := trace.ContextWithSpanContext(testContext(t), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1},
	}))
	_, call := synthesize(t, ctx, connect(t, []wavegate.Option{wavegate.WithPropagator(nil)}, gateway), gateway)
	if got := call.metadata["traceparent"]; got != nil {
		t.Errorf("the trace context is %q", got)
	}
}

func TestTokenOfTheEnvironment(t *testing.T) {
	t.Setenv("WAVEGATE_TOKEN", "from-outside")
	gateway := newFake(t)
	_, call := synthesize(t, testContext(t), connect(t, nil, gateway), gateway)
	if got := call.metadata["authorization"]; len(got) != 1 || got[0] != "Bearer from-outside" {
		t.Errorf("the token came as %q", got)
	}
}

func TestRoundRobin(t *testing.T) {
	ctx := testContext(t)
	first, second := newFake(t), newFake(t)
	client, err := wavegate.NewClient("ipv4:"+first.target+","+second.target, wavegate.WithRoundRobin())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	seen := map[*fakeGateway]bool{}
	for len(seen) < 2 {
		opening := make(chan struct{})
		go func() {
			defer close(opening)
			select {
			case call := <-first.synthesis:
				seen[first] = true
				call.recv(t)
				call.say(t, started("s-1"))
			case call := <-second.synthesis:
				seen[second] = true
				call.recv(t)
				call.say(t, started("s-1"))
			}
		}()
		session, err := client.Synthesize(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		<-opening
		_ = session.Close()
	}
}

// --- wrong on the other end ----------------------------------------------------------------------

// authority makes certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, a.pem = a.make(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) make(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: "wavegate test"}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// pair makes a certificate for a name, as PEM.
func (a *authority) pair(template *x509.Certificate) (chain, key []byte) {
	a.t.Helper()
	_, private, chain := a.make(template)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// serverOption has a fake gateway serve TLS.
func (a *authority) serverOption(template *x509.Certificate, clients bool) grpc.ServerOption {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.pair(template))
	if err != nil {
		a.t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clients {
		config.ClientCAs = x509.NewCertPool()
		config.ClientCAs.AddCert(a.cert)
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return grpc.Creds(credentials.NewTLS(config))
}

func loopback() *x509.Certificate {
	return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	gateway := newFake(t, a.serverOption(loopback(), false))
	_, call := synthesize(t, testContext(t), connect(t, []wavegate.Option{wavegate.WithRootCertificates(a.pem)}, gateway), gateway)
	if call == nil {
		t.Error("it did not come")
	}
}

func TestMutualTLS(t *testing.T) {
	a := newAuthority(t)
	gateway := newFake(t, a.serverOption(loopback(), true))
	chain, key := a.pair(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	options := []wavegate.Option{wavegate.WithRootCertificates(a.pem), wavegate.WithClientCertificate(chain, key)}
	_, call := synthesize(t, testContext(t), connect(t, options, gateway), gateway)
	if call == nil {
		t.Error("it did not come")
	}
}

func TestWrongOnTheOtherEnd(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	metrics := httptest.NewServer(http.NotFoundHandler())
	defer metrics.Close()
	secureMetrics := httptest.NewTLSServer(http.NotFoundHandler())
	defer secureMetrics.Close()
	trusting := wavegate.WithRootCertificates(a.pem)
	for name, c := range map[string]struct {
		target  string
		options []wavegate.Option
		says    string
	}{
		"nobody there":           {"127.0.0.1:1", nil, "start one with `make run` or `wavegate-server`"},
		"TLS to plain text":      {newFake(t).target, []wavegate.Option{trusting}, "does not speak TLS; connect without WithTLS"},
		"plain text to TLS":      {newFake(t, a.serverOption(loopback(), false)).target, nil, "if it serves TLS, connect with WithTLS"},
		"another authority":      {newFake(t, stranger.serverOption(loopback(), false)).target, []wavegate.Option{trusting}, "not trusted here; name the authority with WithRootCertificates"},
		"another name":           {newFake(t, a.serverOption(&x509.Certificate{DNSNames: []string{"other"}}, false)).target, []wavegate.Option{trusting}, "for another name"},
		"no client certificate":  {newFake(t, a.serverOption(loopback(), true)).target, []wavegate.Option{trusting}, "WithClientCertificate"},
		"the port of metrics":    {strings.TrimPrefix(metrics.URL, "http://"), nil, "speaks HTTP/1; is that the port of its metrics?"},
		"metrics, encrypted":     {strings.TrimPrefix(secureMetrics.URL, "https://"), []wavegate.Option{wavegate.WithTLS(&tls.Config{InsecureSkipVerify: true})}, "is that the right port?"},
		"a name that is nowhere": {"nowhere.invalid:50051", nil, "no gateway at nowhere.invalid:50051"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := wavegate.NewClient(c.target, c.options...)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.Synthesize(testContext(t), nil)
			if failure := wantKind(t, err, wavegate.KindGatewayUnavailable); !strings.Contains(failure.Message, c.says) {
				t.Errorf("it tells %q", failure.Message)
			}
			_, err = client.GetSession(testContext(t), "s-1")
			wantKind(t, err, wavegate.KindGatewayUnavailable)
		})
	}
}

// --- errors --------------------------------------------------------------------------------------

func TestErrorDetails(t *testing.T) {
	refused := refusal(codes.ResourceExhausted, "CALLER_QUOTA", "you have as many sessions as you may have")
	for _, way := range []string{"session_ended", "trailers"} {
		t.Run(way, func(t *testing.T) {
			ctx := testContext(t)
			gateway := newFake(t)
			client := connect(t, nil, gateway)
			go func() {
				call := accept(t, gateway.synthesis)
				call.recv(t)
				if way == "trailers" {
					call.end <- refused.Err()
					return
				}
				// The call's own status is lost where the gateway ends it while the client writes.
				call.finish(t, &wavegate.SessionEnded{
					Reason: speechv1.SessionEnded_REASON_FAILURE, Status: inStream(refused),
				}, status.Error(codes.Canceled, "RST_STREAM"))
			}()
			_, err := client.Synthesize(ctx, nil)
			e := wantKind(t, err, wavegate.KindCapacity)
			if e.Code != codes.ResourceExhausted || e.Reason != "CALLER_QUOTA" || !e.Retryable() ||
				e.RetryDelay != 1500*time.Millisecond || e.Metadata["limit"] != "3" {
				t.Errorf("it tells %+v", e)
			}
			if len(e.FieldViolations) != 1 || e.FieldViolations[0].Field != "start.settings.speed" {
				t.Errorf("the fields are %v", e.FieldViolations)
			}
			if len(e.QuotaViolations) != 1 || e.QuotaViolations[0].Subject != "caller" {
				t.Errorf("the quotas are %v", e.QuotaViolations)
			}
			if want := "you have as many sessions as you may have; start.settings.speed: must be from 0.5 to 2"; e.Error() != want {
				t.Errorf("it says %q", e)
			}
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("gRPC's own code is %v", status.Code(err))
			}
		})
	}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		code   codes.Code
		reason string
		kind   wavegate.Kind
	}{
		{codes.InvalidArgument, "FIELD_INVALID", wavegate.KindInvalidRequest},
		{codes.OutOfRange, "RESUME_GAP", wavegate.KindInvalidRequest},
		{codes.Unauthenticated, "CALLER_UNAUTHENTICATED", wavegate.KindAccessDenied},
		{codes.PermissionDenied, "CALLER_FORBIDDEN", wavegate.KindAccessDenied},
		{codes.NotFound, "SESSION_NOT_FOUND", wavegate.KindSessionNotFound},
		{codes.Aborted, "SESSION_TAKEN_OVER", wavegate.KindConflict},
		{codes.ResourceExhausted, "UPSTREAM_CAPACITY", wavegate.KindCapacity},
		{codes.DeadlineExceeded, "SESSION_IDLE", wavegate.KindDeadline},
		{codes.Unavailable, "GATEWAY_DRAINING", wavegate.KindGatewayUnavailable},
		{codes.Unavailable, "UPSTREAM_UNAVAILABLE", wavegate.KindUpstream},
		{codes.FailedPrecondition, "UPSTREAM_CREDENTIAL", wavegate.KindUpstream},
		{codes.Internal, "UPSTREAM_PROTOCOL", wavegate.KindUpstream},
		{codes.Internal, "GATEWAY_BUG", wavegate.KindOther},
	} {
		e := wavegate.StatusError(inStream(refusal(c.code, c.reason, "text")))
		if e.Kind != c.kind || e.Reason != c.reason {
			t.Errorf("%v, %s is %s", c.code, c.reason, e.Kind)
		}
	}
	if e := wavegate.StatusError(&wavegate.Status{Code: 99}); e.Code != codes.Unknown || e.Message == "" {
		t.Errorf("an unknown code gives %+v", e)
	}
	if wavegate.StatusError(nil) != nil || wavegate.StatusError(&wavegate.Status{}) != nil {
		t.Error("OK is an error")
	}
	damaged := inStream(refusal(codes.NotFound, "SESSION_NOT_FOUND", "text"))
	damaged.Details[0].Value = []byte{0xff}
	if e := wavegate.StatusError(damaged); e.Kind != wavegate.KindSessionNotFound || e.Reason != "" || len(e.FieldViolations) != 1 {
		t.Errorf("a damaged detail gives %+v", e)
	}
	if name := wavegate.CodeName(codes.FailedPrecondition); name != "FAILED_PRECONDITION" {
		t.Errorf("the name is %s", name)
	}
}

// --- calls with one answer -----------------------------------------------------------------------

func TestSynthesizeOnce(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	send := func(stream grpc.ServerStreamingServer[speechv1.SynthesizeResponse], responses ...*speechv1.SynthesizeResponse) {
		for _, response := range responses {
			if err := stream.Send(response); err != nil {
				t.Error(err)
			}
		}
	}
	audio := func(text string) *speechv1.SynthesizeResponse {
		return &speechv1.SynthesizeResponse{Event: &speechv1.SynthesizeResponse_Audio{Audio: chunk("r1", 0, text)}}
	}
	first := &speechv1.SynthesizeResponse{Event: &speechv1.SynthesizeResponse_SessionStarted{SessionStarted: started("s-1")}}
	last := &speechv1.SynthesizeResponse{Event: &speechv1.SynthesizeResponse_UtteranceCompleted{UtteranceCompleted: completed("r1")}}
	gateway.once = func(request *speechv1.SynthesizeRequest, stream grpc.ServerStreamingServer[speechv1.SynthesizeResponse]) error {
		if request.GetText() != "Hello." || request.GetRequestId() != "r1" || request.GetAudioFormat().GetEncoding() != wavegate.Mulaw {
			t.Errorf("the request is %v", request)
		}
		send(stream, first, audio("ab"), audio("cd"), last)
		return nil
	}
	speech, err := client.SynthesizeOnce(ctx, "Hello.", nil, wavegate.WithClientSessionID("r1"), wavegate.WithEncoding(wavegate.Mulaw, 8000))
	if err != nil || string(speech.Audio) != "abcd" || speech.Completed.GetUtteranceId() != "r1" || speech.Started == nil {
		t.Errorf("the speech is %v, %v", speech, err)
	}
	gateway.once = func(_ *speechv1.SynthesizeRequest, stream grpc.ServerStreamingServer[speechv1.SynthesizeResponse]) error {
		send(stream, first, audio("ab"))
		return nil
	}
	_, err = client.SynthesizeOnce(ctx, "Hello.", nil)
	wantKind(t, err, wavegate.KindConnectionLost)
	left := make(chan error, 1)
	gateway.once = func(_ *speechv1.SynthesizeRequest, stream grpc.ServerStreamingServer[speechv1.SynthesizeResponse]) error {
		send(stream, first)
		<-stream.Context().Done()
		left <- stream.Context().Err()
		return stream.Context().Err()
	}
	for range client.SynthesizeOnceEvents(ctx, "Hello.", nil) {
		break
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("leaving the loop gave %v", err)
	}
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = client.SynthesizeOnce(soon, "Hello.", nil)
	wantKind(t, err, wavegate.KindDeadline)
}

func TestTranscribeOnce(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	gateway.recognize = func(ctx context.Context, request *speechv1.RecognizeRequest) (*speechv1.RecognizeResponse, error) {
		if deadline, has := ctx.Deadline(); !has || time.Until(deadline) > 300*time.Second {
			t.Error("the call has another deadline")
		}
		return &speechv1.RecognizeResponse{Text: string(request.GetContent()) + request.GetUri()}, nil
	}
	if answer, err := client.TranscribeOnce(ctx, []byte("abc"), nil); err != nil || answer.GetText() != "abc" {
		t.Errorf("the answer is %v, %v", answer, err)
	}
	if answer, err := client.TranscribeURI(ctx, "https://example.com/a.wav", nil); err != nil || answer.GetText() != "https://example.com/a.wav" {
		t.Errorf("the answer is %v, %v", answer, err)
	}
	_, err := client.TranscribeOnce(ctx, make([]byte, 33<<20), nil)
	if e := wantKind(t, err, wavegate.KindInvalidRequest); len(e.FieldViolations) != 1 || e.FieldViolations[0].Field != "content" {
		t.Errorf("it tells %+v", e)
	}
	// A gateway that is set to less says so by gRPC's own words.
	gateway.recognize = func(context.Context, *speechv1.RecognizeRequest) (*speechv1.RecognizeResponse, error) {
		return nil, status.Error(codes.ResourceExhausted, "SERVER: Received message larger than max (5000 vs. 4000)")
	}
	_, err = client.TranscribeOnce(ctx, []byte("abc"), nil)
	wantKind(t, err, wavegate.KindInvalidRequest)
}

func TestPages(t *testing.T) {
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	gateway.voices = func(_ context.Context, request *speechv1.ListVoicesRequest) (*speechv1.ListVoicesResponse, error) {
		if request.GetLanguageCode() != "en" {
			t.Errorf("the request is %v", request)
		}
		if request.GetPageToken() == "" {
			return &speechv1.ListVoicesResponse{Voices: []*wavegate.Voice{{VoiceId: "a"}, {VoiceId: "b"}}, NextPageToken: "2"}, nil
		}
		return &speechv1.ListVoicesResponse{Voices: []*wavegate.Voice{{VoiceId: "c"}}}, nil
	}
	names := ""
	for voice, err := range client.ListVoices(testContext(t), wavegate.VoiceFilter{LanguageCode: "en"}) {
		if err != nil {
			t.Fatal(err)
		}
		names += voice.GetVoiceId()
	}
	if names != "abc" {
		t.Errorf("the voices are %s", names)
	}
	_, err := client.GetSession(testContext(t), "s-1")
	if e := wantKind(t, err, wavegate.KindOther); !strings.Contains(e.Message, "may be older than this client") {
		t.Errorf("it tells %q", e.Message)
	}
}
