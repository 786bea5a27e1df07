package wavegate_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// hang is how long anything may take before a test calls it hanging.
const hang = 30 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// fakeGateway serves calls that tests answer step by step.
type fakeGateway struct {
	speechv1.UnimplementedSynthesisServiceServer
	speechv1.UnimplementedTranscriptionServiceServer
	speechv1.UnimplementedSessionServiceServer

	target     string
	server     *grpc.Server
	listener   *cuttable
	synthesis  chan *fakeCall[speechv1.SynthesizeStreamRequest, speechv1.SynthesizeStreamResponse]
	transcribe chan *fakeCall[speechv1.TranscribeStreamRequest, speechv1.TranscribeStreamResponse]
	control    chan *fakeCall[speechv1.UpdateSettingsRequest, speechv1.UpdateSettingsResponse]
	closed     chan fakeClose
	// What the calls with one answer do; nil: UNIMPLEMENTED.
	once      func(*speechv1.SynthesizeRequest, grpc.ServerStreamingServer[speechv1.SynthesizeResponse]) error
	recognize func(context.Context, *speechv1.RecognizeRequest) (*speechv1.RecognizeResponse, error)
	voices    func(context.Context, *speechv1.ListVoicesRequest) (*speechv1.ListVoicesResponse, error)
	trace     func(*speechv1.GetTraceRequest, grpc.ServerStreamingServer[speechv1.GetTraceResponse]) error
}

// cuttable is a listener whose connections can be cut.
type cuttable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	open  atomic.Int64
}

// counted is a connection that counts as long as it is open.
type counted struct {
	net.Conn
	once sync.Once
	open *atomic.Int64
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func (l *cuttable) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.open.Add(1)
		conn = &counted{Conn: conn, open: &l.open}
		l.mu.Lock()
		l.conns = append(l.conns, conn)
		l.mu.Unlock()
	}
	return conn, err
}

// cut breaks every connection, as a network does that fails.
func (g *fakeGateway) cut() {
	g.listener.mu.Lock()
	defer g.listener.mu.Unlock()
	for _, conn := range g.listener.conns {
		_ = conn.Close()
	}
	g.listener.conns = nil
}

// awaitConnections waits until the gateway has so many connections.
func (g *fakeGateway) awaitConnections(t *testing.T, wanted int64) {
	t.Helper()
	for deadline := time.Now().Add(hang); g.listener.open.Load() != wanted; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the gateway has %d connections, not %d", g.listener.open.Load(), wanted)
		}
	}
}

func newFake(t testing.TB, options ...grpc.ServerOption) *fakeGateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &fakeGateway{
		target:     listener.Addr().String(),
		server:     grpc.NewServer(options...),
		listener:   &cuttable{Listener: listener},
		synthesis:  make(chan *fakeCall[speechv1.SynthesizeStreamRequest, speechv1.SynthesizeStreamResponse], 16),
		transcribe: make(chan *fakeCall[speechv1.TranscribeStreamRequest, speechv1.TranscribeStreamResponse], 16),
		control:    make(chan *fakeCall[speechv1.UpdateSettingsRequest, speechv1.UpdateSettingsResponse], 16),
		closed:     make(chan fakeClose, 16),
	}
	speechv1.RegisterSynthesisServiceServer(g.server, g)
	speechv1.RegisterTranscriptionServiceServer(g.server, g)
	speechv1.RegisterSessionServiceServer(g.server, g)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = g.server.Serve(g.listener)
	}()
	t.Cleanup(func() {
		g.server.Stop()
		<-served
	})
	return g
}

func (g *fakeGateway) SynthesizeStream(
	stream grpc.BidiStreamingServer[speechv1.SynthesizeStreamRequest, speechv1.SynthesizeStreamResponse],
) error {
	return serve(stream, g.synthesis)
}

func (g *fakeGateway) TranscribeStream(
	stream grpc.BidiStreamingServer[speechv1.TranscribeStreamRequest, speechv1.TranscribeStreamResponse],
) error {
	return serve(stream, g.transcribe)
}

func (g *fakeGateway) UpdateSettings(
	stream grpc.BidiStreamingServer[speechv1.UpdateSettingsRequest, speechv1.UpdateSettingsResponse],
) error {
	return serve(stream, g.control)
}

// fakeClose is the end of a session from outside.
type fakeClose struct {
	request  *speechv1.CloseSessionRequest
	metadata metadata.MD
}

func (g *fakeGateway) CloseSession(ctx context.Context, request *speechv1.CloseSessionRequest) (
	*speechv1.CloseSessionResponse, error,
) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	g.closed <- fakeClose{request, incoming}
	return &speechv1.CloseSessionResponse{}, nil
}

func (g *fakeGateway) GetTrace(
	request *speechv1.GetTraceRequest, stream grpc.ServerStreamingServer[speechv1.GetTraceResponse],
) error {
	return g.trace(request, stream)
}

func (g *fakeGateway) Synthesize(
	request *speechv1.SynthesizeRequest, stream grpc.ServerStreamingServer[speechv1.SynthesizeResponse],
) error {
	return g.once(request, stream)
}

func (g *fakeGateway) Recognize(ctx context.Context, request *speechv1.RecognizeRequest) (
	*speechv1.RecognizeResponse, error,
) {
	return g.recognize(ctx, request)
}

func (g *fakeGateway) ListVoices(ctx context.Context, request *speechv1.ListVoicesRequest) (
	*speechv1.ListVoicesResponse, error,
) {
	return g.voices(ctx, request)
}

// fakeCall is one call, answered by the test.
type fakeCall[Req, Res any] struct {
	stream   grpc.BidiStreamingServer[Req, Res]
	metadata metadata.MD
	requests chan *Req
	readErr  error // once requests is closed
	end      chan error
	ending   atomic.Bool // the test ends it
	sequence int64
	acked    int64
}

func serve[Req, Res any](stream grpc.BidiStreamingServer[Req, Res], calls chan *fakeCall[Req, Res]) error {
	incoming, _ := metadata.FromIncomingContext(stream.Context())
	call := &fakeCall[Req, Res]{
		stream: stream, metadata: incoming, requests: make(chan *Req, 4096), end: make(chan error, 4),
	}
	go func() {
		defer close(call.requests)
		for {
			request, err := stream.Recv()
			if err != nil {
				call.readErr = err
				if !call.ending.Load() {
					call.end <- nil // as gateways do at a half-close
				}
				return
			}
			call.requests <- request
		}
	}()
	calls <- call
	select {
	case err := <-call.end:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// accept waits for the next call.
func accept[Req, Res any](t testing.TB, calls chan *fakeCall[Req, Res]) *fakeCall[Req, Res] {
	t.Helper()
	select {
	case call := <-calls:
		return call
	case <-time.After(hang):
		t.Fatal("no call came")
		return nil
	}
}

// recv waits for the next request.
func (c *fakeCall[Req, Res]) recv(t testing.TB) *Req {
	t.Helper()
	select {
	case request, ok := <-c.requests:
		if !ok {
			t.Fatalf("the call ended instead: %v", c.readErr)
		}
		return request
	case <-time.After(hang):
		t.Fatal("no request came")
		return nil
	}
}

// gone waits until the client's side of the call is over; nil where it half-closed.
func (c *fakeCall[Req, Res]) gone(t *testing.T) error {
	t.Helper()
	limit := time.After(hang)
	for {
		select {
		case _, ok := <-c.requests:
			if ok {
				continue
			}
			if errors.Is(c.readErr, io.EOF) {
				return nil
			}
			return c.readErr
		case <-limit:
			t.Fatal("the call did not end")
		}
	}
}

// lead sends the initial metadata as a balancer does that says which way it took.
func (c *fakeCall[Req, Res]) lead(t testing.TB, route string) {
	t.Helper()
	if err := c.stream.SendHeader(metadata.Pairs("wavegate-route", route)); err != nil {
		t.Errorf("the initial metadata could not be sent: %v", err)
	}
}

// routes are the ways that the call asks a balancer to take.
func (c *fakeCall[Req, Res]) routes() []string { return c.metadata.Get("wavegate-route") }

// say sends an event of a synthesis session.
func (c *fakeCall[Req, Res]) say(t testing.TB, event any) {
	t.Helper()
	c.sequence++
	if err := c.stream.SendMsg(response(c.sequence, c.acked, event)); err != nil {
		t.Errorf("an event could not be sent: %v", err)
	}
}

// response wraps an event of a synthesis or transcription session.
func response(sequence, acked int64, event any) proto.Message {
	s := &speechv1.SynthesizeStreamResponse{Sequence: sequence, AcknowledgedInputSequence: acked}
	t := &speechv1.TranscribeStreamResponse{Sequence: sequence, AcknowledgedInputSequence: acked}
	// Of what both kinds have the fields have other numbers, so the kind shows in the wrapper.
	switch event := event.(type) {
	case listens:
		switch event := event.event.(type) {
		case *wavegate.SessionStarted:
			t.Event = &speechv1.TranscribeStreamResponse_SessionStarted{SessionStarted: event}
		case *wavegate.Transcript:
			t.Event = &speechv1.TranscribeStreamResponse_Transcript{Transcript: event}
		case *wavegate.GoAway:
			t.Event = &speechv1.TranscribeStreamResponse_GoAway{GoAway: event}
		case *wavegate.SessionEnded:
			t.Event = &speechv1.TranscribeStreamResponse_SessionEnded{SessionEnded: event}
		case *wavegate.SpeechStarted:
			t.Event = &speechv1.TranscribeStreamResponse_SpeechStarted{SpeechStarted: event}
		case *wavegate.AudioProgress:
			t.Event = &speechv1.TranscribeStreamResponse_Progress{Progress: event}
		}
		return t
	case *wavegate.SessionStarted:
		s.Event = &speechv1.SynthesizeStreamResponse_SessionStarted{SessionStarted: event}
	case *wavegate.UtteranceStarted:
		s.Event = &speechv1.SynthesizeStreamResponse_UtteranceStarted{UtteranceStarted: event}
	case *wavegate.AudioChunk:
		s.Event = &speechv1.SynthesizeStreamResponse_Audio{Audio: event}
	case *wavegate.UtteranceCompleted:
		s.Event = &speechv1.SynthesizeStreamResponse_UtteranceCompleted{UtteranceCompleted: event}
	case *wavegate.UtteranceCancelled:
		s.Event = &speechv1.SynthesizeStreamResponse_UtteranceCancelled{UtteranceCancelled: event}
	case *wavegate.UtteranceFailed:
		s.Event = &speechv1.SynthesizeStreamResponse_UtteranceFailed{UtteranceFailed: event}
	case *wavegate.SettingsAck:
		s.Event = &speechv1.SynthesizeStreamResponse_SettingsAck{SettingsAck: event}
	case *wavegate.GoAway:
		s.Event = &speechv1.SynthesizeStreamResponse_GoAway{GoAway: event}
	case *wavegate.SessionEnded:
		s.Event = &speechv1.SynthesizeStreamResponse_SessionEnded{SessionEnded: event}
	}
	return s
}

// listens marks an event as one of a transcription session.
type listens struct{ event any }

// finish says the last word and ends the call with its status.
func (c *fakeCall[Req, Res]) finish(t *testing.T, ended any, err error) {
	t.Helper()
	c.ending.Store(true)
	c.say(t, ended)
	_ = c.gone(t)
	c.end <- err
}

// --- what gateways say ---------------------------------------------------------------------------

func started(id string) *wavegate.SessionStarted {
	return &wavegate.SessionStarted{
		SessionId:   id,
		AudioFormat: &wavegate.AudioFormat{Encoding: wavegate.Linear16, SampleRateHertz: 24_000, ChannelCount: 1},
		Settings: &speechv1.EffectiveSettings{
			Settings: &speechv1.EffectiveSettings_Synthesis{Synthesis: &wavegate.SynthesisSettings{VoiceId: new("magnus")}},
		},
		SettingsRevision: 1,
		Limits:           &wavegate.SessionLimits{ResumeWindow: durationpb.New(30 * time.Second), MaxTextMessageChars: 1000},
	}
}

func listening(id string) *wavegate.SessionStarted {
	s := started(id)
	s.AudioFormat.SampleRateHertz = 16_000
	s.Settings = &speechv1.EffectiveSettings{
		Settings: &speechv1.EffectiveSettings_Transcription{Transcription: &wavegate.TranscriptionSettings{}},
	}
	return s
}

func resumed(id string, acknowledged int64) *wavegate.SessionStarted {
	s := started(id)
	s.Resumed, s.InputSequenceAcknowledged = true, acknowledged
	return s
}

func chunk(id string, index int32, audio string) *wavegate.AudioChunk {
	return &wavegate.AudioChunk{UtteranceId: id, ChunkIndex: index, Audio: []byte(audio)}
}

func completed(id string) *wavegate.UtteranceCompleted {
	return &wavegate.UtteranceCompleted{UtteranceId: id}
}

func cancelled(id string) *wavegate.UtteranceCancelled {
	return &wavegate.UtteranceCancelled{UtteranceId: id, SpokenText: "heard"}
}

func ended(reason speechv1.SessionEnded_Reason) *wavegate.SessionEnded {
	return &wavegate.SessionEnded{Reason: reason, Status: &wavegate.Status{}}
}

// refusal is a status with every detail that there is.
func refusal(code codes.Code, reason, text string) *status.Status {
	s, err := status.New(code, text).WithDetails(
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: reason, Domain: "wavegate.speech", Metadata: map[string]string{"limit": "3"}}),
		protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}),
		protoadapt.MessageV1Of(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "start.settings.speed", Description: "must be from 0.5 to 2"},
		}}),
		protoadapt.MessageV1Of(&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{
			{Subject: "caller", Description: "3 sessions"},
		}}),
	)
	if err != nil {
		panic(err)
	}
	return s
}

func inStream(s *status.Status) *wavegate.Status {
	details := append([]*anypb.Any(nil), s.Proto().GetDetails()...)
	return &wavegate.Status{Code: int32(s.Code()), Message: s.Message(), Details: details}
}

// --- clients and sessions ------------------------------------------------------------------------

// connect makes a client of fake gateways, and checks in the end that it leaves no goroutine behind.
func connect(t *testing.T, options []wavegate.Option, gateways ...*fakeGateway) *wavegate.Client {
	t.Helper()
	var targets []string
	for _, gateway := range gateways {
		targets = append(targets, gateway.target)
	}
	client, err := wavegate.NewClient("", append([]wavegate.Option{wavegate.WithTargets(targets...)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if left := goroutines(10 * time.Second); left != "" {
			t.Errorf("goroutines of the client are left:\n%s", left)
		}
	})
	return client
}

// goroutines waits until none of the client's is left; gives their stacks where some stay for so long.
func goroutines(within time.Duration) string {
	var left []string
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		buffer := make([]byte, 1<<20)
		stacks := strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n")
		left = nil
		for _, stack := range stacks {
			// Those of tests have other frames: their package is wavegate_test.
			if strings.Contains(stack, "example.com/wavegate/clients/go.") || strings.Contains(stack, "(*http2Client)") ||
				strings.Contains(stack, "(*ClientConn)") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}

type synthesisCall = fakeCall[speechv1.SynthesizeStreamRequest, speechv1.SynthesizeStreamResponse]
type transcriptionCall = fakeCall[speechv1.TranscribeStreamRequest, speechv1.TranscribeStreamResponse]

// synthesize opens a session at a fake gateway.
func synthesize(t testing.TB, ctx context.Context, client *wavegate.Client, gateway *fakeGateway, options ...wavegate.SessionOption) (
	*wavegate.SynthesisSession, *synthesisCall,
) {
	t.Helper()
	opening := make(chan *synthesisCall, 1)
	go func() {
		call := accept(t, gateway.synthesis)
		if start := call.recv(t); start.GetStart() == nil || start.GetInputSequence() != 1 {
			t.Errorf("the first request is %v", start)
		}
		call.acked = 1
		call.say(t, started("s-1"))
		opening <- call
	}()
	session, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{VoiceId: new("magnus")}, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session, <-opening
}

// transcribe opens a session at a fake gateway.
func transcribe(t *testing.T, ctx context.Context, client *wavegate.Client, gateway *fakeGateway, options ...wavegate.SessionOption) (
	*wavegate.TranscriptionSession, *transcriptionCall,
) {
	t.Helper()
	opening := make(chan *transcriptionCall, 1)
	go func() {
		call := accept(t, gateway.transcribe)
		call.recv(t)
		call.acked = 1
		call.say(t, listens{listening("s-1")})
		opening <- call
	}()
	session, err := client.Transcribe(ctx, nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session, <-opening
}

// next gives the next event that is of type T; others are passed over.
func next[T any](t *testing.T, ctx context.Context, session interface {
	Next(context.Context) (wavegate.Event, error)
}) T {
	t.Helper()
	for {
		event, err := session.Next(ctx)
		if err != nil {
			t.Fatalf("no %T came: %v", *new(T), err)
		}
		if wanted, ok := event.(T); ok {
			return wanted
		}
	}
}

func kindOf(err error) wavegate.Kind {
	var known *wavegate.Error
	if errors.As(err, &known) {
		return known.Kind
	}
	return ""
}

// wantKind fails the test where err is of another kind.
func wantKind(t *testing.T, err error, kind wavegate.Kind) *wavegate.Error {
	t.Helper()
	var known *wavegate.Error
	if !errors.As(err, &known) || known.Kind != kind {
		t.Fatalf("the error is %v (%s), not of kind %s", err, kindOf(err), kind)
	}
	return known
}
