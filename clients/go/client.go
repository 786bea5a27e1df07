package wavegate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"iter"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// Version is that of this client.
const Version = "0.1.0"

const (
	// unaryTimeout is how long a call with one answer may take where its context has no deadline,
	unaryTimeout = 30 * time.Second
	// recognizeTimeout is that of the transcription of a whole recording.
	recognizeTimeout = 300 * time.Second
)

// Client is a connection to a gateway, or to several. It connects with the first call, and again by itself after a loss.
// Any number of calls and sessions may run at once over it.
type Client struct{ in *connections }

// connections is the part of a client that its sessions use.
type connections struct {
	channels channels
	mu       sync.Mutex
	closed   bool
	streams  map[stoppable]struct{}
}

// stoppable is a stream that a client has open.
type stoppable interface{ stop(*Error) }

// --- options -------------------------------------------------------------------------------------

type clientOptions struct {
	targets      []string
	tls          bool
	tlsConfig    *tls.Config
	roots        []byte
	hasRoots     bool
	certificate  []byte
	key          []byte
	token        string
	hasToken     bool
	metadata     []string
	roundRobin   bool
	dial         []grpc.DialOption
	propagator   propagation.TextMapPropagator
	noPropagator bool
}

// Option says how a client connects.
type Option func(*clientOptions)

// WithTargets gives the addresses of further gateways: a session opens on the first that takes it, and moves to another
// one when its own shuts down. Calls that are no session go to the one in use.
func WithTargets(targets ...string) Option {
	return func(o *clientOptions) { o.targets = append(o.targets, targets...) }
}

// WithTLS encrypts. config may be nil; it is not changed.
func WithTLS(config *tls.Config) Option {
	return func(o *clientOptions) {
		o.tls = true
		if config != nil {
			o.tlsConfig = config
		}
	}
}

// WithRootCertificates encrypts, and trusts these authorities (PEM) in the place of the system's.
func WithRootCertificates(pem []byte) Option {
	return func(o *clientOptions) { o.tls, o.roots, o.hasRoots = true, pem, true }
}

// WithClientCertificate encrypts, and shows this certificate (a chain and its private key, PEM) to the gateway.
func WithClientCertificate(chain, privateKey []byte) Option {
	return func(o *clientOptions) { o.tls, o.certificate, o.key = true, chain, privateKey }
}

// WithToken sends a token with every call, as `authorization: Bearer`. Without it WAVEGATE_TOKEN counts.
func WithToken(token string) Option {
	return func(o *clientOptions) { o.token, o.hasToken = token, true }
}

// WithMetadata sends metadata with every call.
func WithMetadata(metadata map[string]string) Option {
	return func(o *clientOptions) {
		for key, value := range metadata {
			o.metadata = append(o.metadata, key, value)
		}
	}
}

// WithRoundRobin spreads calls over all addresses that the name of a target has, or over those that an `ipv4:` target
// lists. Without it the first that answers is used.
func WithRoundRobin() Option {
	return func(o *clientOptions) { o.roundRobin = true }
}

// WithDialOptions gives options of gRPC, behind this client's own.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(o *clientOptions) { o.dial = append(o.dial, options...) }
}

// WithPropagator sends what the propagator makes of the context of each call. Without it that is the W3C trace context of
// its span, so that a program which uses OpenTelemetry is the parent of the gateway's spans; nil switches it off.
func WithPropagator(propagator propagation.TextMapPropagator) Option {
	return func(o *clientOptions) { o.propagator, o.noPropagator = propagator, propagator == nil }
}

// NewClient makes a client of the gateway at target: HOST:PORT, or any name of gRPC's own such as
// `dns:///gateway.internal:50051` or `unix:/run/wavegate.sock`. An empty one stands for WAVEGATE_TARGET, or
// [DefaultTarget] where that is not set. With TLS the port may be left out: 443.
//
// It connects to nothing yet. Gives an error of KindArgument for a target that is written wrong, a token that no header
// takes, or certificates that are none.
func NewClient(target string, options ...Option) (*Client, error) {
	var chosen clientOptions
	for _, option := range options {
		option(&chosen)
	}
	config, err := chosen.config()
	if err != nil {
		return nil, err
	}
	targets := chosen.targets
	switch {
	case target != "":
		targets = append([]string{target}, targets...)
	case len(targets) == 0:
		targets = []string{defaultTarget()}
	}
	in := &connections{streams: map[stoppable]struct{}{}}
	seen := map[string]bool{}
	for _, address := range targets {
		if seen[address] {
			continue
		}
		seen[address] = true
		if err := checkTarget(address, config.tls); err != nil {
			in.channels.close()
			return nil, err
		}
		channel, err := newChannel(config, address)
		if err != nil {
			in.channels.close()
			return nil, err
		}
		in.channels.list = append(in.channels.list, channel)
	}
	client := &Client{in}
	runtime.AddCleanup(client, func(in *connections) { go in.close() }, in)
	return client, nil
}

func defaultTarget() string {
	if target := os.Getenv("WAVEGATE_TARGET"); target != "" {
		return target
	}
	return DefaultTarget
}

// config makes of the options what the channels need.
func (o *clientOptions) config() (*channelConfig, error) {
	config := &channelConfig{tls: o.tls, roundRobin: o.roundRobin, dial: transportOptions(), metadata: o.metadata}
	token := o.token
	if !o.hasToken {
		token = os.Getenv("WAVEGATE_TOKEN")
	}
	if token != "" {
		if err := checkHeader("the token", token); err != nil {
			return nil, err
		}
		config.metadata = append(config.metadata, "authorization", "Bearer "+token)
	}
	for at := 0; at < len(o.metadata); at += 2 {
		key, value := o.metadata[at], o.metadata[at+1]
		if !isHeaderName(key) {
			return nil, argumentError("%q is no name of metadata", key)
		}
		if !strings.HasSuffix(strings.ToLower(key), "-bin") {
			if err := checkHeader("the metadata "+strconv.Quote(key), value); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case o.propagator != nil:
		config.propagator = o.propagator
	case !o.noPropagator:
		config.propagator = propagation.TraceContext{}
	}
	transport := insecure.NewCredentials()
	if o.tls {
		tlsConfig, err := o.makeTLS()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(tlsConfig)
	}
	config.dial = append(config.dial, grpc.WithTransportCredentials(transport))
	if o.roundRobin {
		config.dial = append(config.dial, grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	}
	config.dial = append(config.dial, o.dial...)
	return config, nil
}

func (o *clientOptions) makeTLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.tlsConfig != nil {
		config = o.tlsConfig.Clone()
	}
	if o.hasRoots {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.roots) {
			// Nothing would be trusted by it, and nothing is sent in the clear because of it.
			return nil, argumentError("the root certificates hold no certificate (PEM)")
		}
		config.RootCAs = pool
	}
	if o.certificate != nil || o.key != nil {
		pair, err := tls.X509KeyPair(o.certificate, o.key)
		if err != nil {
			return nil, argumentError("the client certificate cannot be used: %v", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// checkHeader says what keeps a value from going in a header; it does not repeat the value.
func checkHeader(what, value string) error {
	if strings.ContainsAny(value, "\r\n") {
		return argumentError("%s holds a line break", what)
	}
	for at, character := range value {
		if character < ' ' || character > '~' {
			return argumentError("%s holds a character that is not printable ASCII (at byte %d)", what, at)
		}
	}
	return nil
}

func isHeaderName(name string) bool {
	return name != "" && strings.IndexFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) < 0
}

// --- the client ----------------------------------------------------------------------------------

// Target is where the gateway is; of several, the one in use.
func (c *Client) Target() string {
	defer runtime.KeepAlive(c)
	return c.in.channels.current().target
}

// Close ends every session at once, every call and the connection, and waits until none of their goroutines is left. It
// may be called again.
func (c *Client) Close() error {
	defer runtime.KeepAlive(c)
	c.in.close()
	return nil
}

func (c *connections) close() {
	c.mu.Lock()
	c.closed = true
	var ending sync.WaitGroup
	for stream := range c.streams {
		ending.Go(func() { stream.stop(nil) })
	}
	c.mu.Unlock()
	ending.Wait()
	c.channels.close()
}

// add takes note of a stream, and gives what forgets it; false where the client is closed.
func (c *connections) add(stream stoppable) (func(), bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	c.streams[stream] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.streams, stream)
	}, true
}

func clientClosed() *Error {
	return &Error{Kind: KindSessionClosed, Code: codes.Canceled, Message: "the client was closed; make another one"}
}

// --- sessions of this caller ---------------------------------------------------------------------

// SessionOption says how a session is opened.
type SessionOption func(*sessionConfig)

// WithAudioFormat says how audio is written: of a synthesis session what is wanted, by default LINEAR16 at 24000 Hz; of
// a transcription session what will be sent, by default LINEAR16 at 16000 Hz.
func WithAudioFormat(format *AudioFormat) SessionOption {
	return func(c *sessionConfig) { c.audioFormat = proto.CloneOf(format) }
}

// WithEncoding is WithAudioFormat in short, with one channel.
func WithEncoding(encoding AudioEncoding, sampleRateHertz int) SessionOption {
	return WithAudioFormat(&AudioFormat{Encoding: encoding, SampleRateHertz: int32(sampleRateHertz)})
}

// WithClientSessionID gives the caller's own id of the session, which goes upstream for correlation.
func WithClientSessionID(id string) SessionOption {
	return func(c *sessionConfig) { c.clientSessionID = id }
}

// WithLabels gives the caller's own marks on the session, which ListSessions shows. Never put secrets here.
func WithLabels(labels map[string]string) SessionOption {
	return func(c *sessionConfig) { c.labels = maps.Clone(labels) }
}

// WithResumeWindow says how long the session outlives the loss of its connection, as far as the gateway grants it;
// [DefaultResumeWindow] without it. With 0 it ends with its connection.
func WithResumeWindow(window time.Duration) SessionOption {
	return func(c *sessionConfig) { c.resumeWindow = window }
}

// WithOpenTimeout says how long the opening may take; [DefaultOpenTimeout] without it, and 0 for no limit.
func WithOpenTimeout(timeout time.Duration) SessionOption {
	return func(c *sessionConfig) { c.openTimeout = timeout }
}

// WithoutMoving keeps the session where it is when its gateway shuts down; it ends there.
func WithoutMoving() SessionOption {
	return func(c *sessionConfig) { c.stays = true }
}

// WithMaxAudioLead lets the gateway send at most so much audio ahead of real time; without it audio comes as fast as it is
// read. For synthesis.
func WithMaxAudioLead(lead time.Duration) SessionOption {
	return func(c *sessionConfig) { c.maxAudioLead = &lead }
}

// WithKeepAlive says whether the gateway keeps the upstream connection of a session open while it is sent no audio, which it
// does by default. For transcription.
func WithKeepAlive(on bool) SessionOption {
	return func(c *sessionConfig) { c.keepAlive = &on }
}

// WithInitialAudioOffset is the time of the first sample where the session continues another. For transcription.
func WithInitialAudioOffset(offset time.Duration) SessionOption {
	return func(c *sessionConfig) { c.initialOffset = &offset }
}

func sessionConfigOf(options []SessionOption) (sessionConfig, error) {
	config := sessionConfig{resumeWindow: DefaultResumeWindow, openTimeout: DefaultOpenTimeout}
	for _, option := range options {
		option(&config)
	}
	if config.resumeWindow < 0 || config.openTimeout < 0 {
		return config, argumentError("a resume window and a timeout cannot be negative")
	}
	return config, nil
}

// Synthesize opens a session of speech synthesis; it returns once the upstream has accepted it. Settings that are not set
// are left to the gateway; nil leaves all of them.
//
// ctx is the session's, not only that of the opening: when it is done the session ends at once. The session has no
// deadline but that; its opening has one, see [WithOpenTimeout].
//
// Gives an error of KindGatewayUnavailable where there is no gateway, KindDeadline where it does not answer in time, and
// otherwise what the gateway or the upstream says against it.
func (c *Client) Synthesize(ctx context.Context, settings *SynthesisSettings, options ...SessionOption) (*SynthesisSession, error) {
	defer runtime.KeepAlive(c)
	config, err := sessionConfigOf(options)
	if err != nil {
		return nil, err
	}
	in := newSynthesis(ctx, &c.in.channels, settings, config)
	if err := c.in.open(ctx, &in.session); err != nil {
		return nil, err
	}
	session := &SynthesisSession{c, in}
	runtime.AddCleanup(session, func(in *synthesis) { go in.stop(nil) }, in)
	return session, nil
}

// Transcribe opens a session of transcription; see [Client.Synthesize].
func (c *Client) Transcribe(ctx context.Context, settings *TranscriptionSettings, options ...SessionOption) (
	*TranscriptionSession, error,
) {
	defer runtime.KeepAlive(c)
	config, err := sessionConfigOf(options)
	if err != nil {
		return nil, err
	}
	in := newTranscription(ctx, &c.in.channels, settings, config)
	if err := c.in.open(ctx, &in.session); err != nil {
		return nil, err
	}
	session := &TranscriptionSession{c, in}
	runtime.AddCleanup(session, func(in *transcription) { go in.stop(nil) }, in)
	return session, nil
}

func (c *connections) open(ctx context.Context, s *session) error {
	release, ok := c.add(s)
	if !ok {
		return clientClosed()
	}
	s.release = release
	if err := s.open(ctx); err != nil {
		release()
		return err
	}
	return nil
}

// --- whole texts and recordings ------------------------------------------------------------------

// Speech is a spoken text.
type Speech struct {
	// Audio is all of it, in the format that Started says.
	Audio []byte
	// Started is the gateway's first answer.
	Started *SessionStarted
	// Completed is its last, with what was measured.
	Completed *UtteranceCompleted
	// Words are the words and their times, with SynthesisSettings.WordTimings.
	Words []*speechv1.WordTimings_Word
	// Warnings are what the gateway had to say besides.
	Warnings []*Warning
}

// SynthesizeOnce speaks one text, and gives all of its audio. Of the options only [WithAudioFormat] has a meaning; the
// client session id becomes the id of the request.
func (c *Client) SynthesizeOnce(ctx context.Context, text string, settings *SynthesisSettings, options ...SessionOption) (
	*Speech, error,
) {
	speech := &Speech{}
	for event, err := range c.SynthesizeOnceEvents(ctx, text, settings, options...) {
		if err != nil {
			return nil, err
		}
		switch event := event.(type) {
		case *SessionStarted:
			speech.Started = event
		case *AudioChunk:
			speech.Audio = append(speech.Audio, event.GetAudio()...)
		case *WordTimings:
			speech.Words = append(speech.Words, event.GetWords()...)
		case *Warning:
			speech.Warnings = append(speech.Warnings, event)
		case *UtteranceCompleted:
			speech.Completed = event
		}
	}
	return speech, nil
}

// SynthesizeOnceEvents speaks one text, and gives the events as they come: SessionStarted, audio and word timings,
// UtteranceCompleted. Leaving the loop cancels it.
func (c *Client) SynthesizeOnceEvents(
	ctx context.Context, text string, settings *SynthesisSettings, options ...SessionOption,
) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		defer runtime.KeepAlive(c)
		config, err := sessionConfigOf(options)
		if err != nil {
			yield(nil, err)
			return
		}
		if settings == nil {
			settings = &SynthesisSettings{}
		}
		channel := c.in.channels.acquire()
		defer c.in.channels.release(channel)
		ctx, cancel := context.WithCancel(channel.outgoing(ctx, ""))
		defer cancel()
		call, err := channel.synthesis().Synthesize(ctx, &speechv1.SynthesizeRequest{
			Text: strings.ToValidUTF8(text, "\uFFFD"), Settings: settings, AudioFormat: config.audioFormat,
			RequestId: config.clientSessionID,
		})
		if err != nil {
			yield(nil, c.in.failed(ctx, channel, err, false))
			return
		}
		answered, completed := false, false
		for {
			message, err := call.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(nil, c.in.failed(ctx, channel, err, answered))
				return
			}
			answered = true
			var event Event
			switch arm := message.GetEvent().(type) {
			case *speechv1.SynthesizeResponse_SessionStarted:
				event = arm.SessionStarted
			case *speechv1.SynthesizeResponse_Audio:
				event = arm.Audio
			case *speechv1.SynthesizeResponse_UtteranceCompleted:
				event, completed = arm.UtteranceCompleted, true
			case *speechv1.SynthesizeResponse_Warning:
				event = arm.Warning
			case *speechv1.SynthesizeResponse_WordTimings:
				event = arm.WordTimings
			}
			if event != nil && !yield(event, nil) {
				return
			}
		}
		if !completed {
			yield(nil, &Error{
				Kind: KindConnectionLost, Code: codes.Unavailable,
				Message: "the gateway at " + channel.target + " ended the speech before it was complete; ask again",
			})
		}
	}
}

// failed gives the error for a call that is no session.
func (c *connections) failed(ctx context.Context, channel *channel, err error, answered bool) error {
	switch {
	case ctx.Err() != nil:
		return contextError(ctx)
	case c.channels.isClosed():
		return clientClosed()
	}
	return channel.error(err, answered)
}

// TranscribeOnce transcribes a recording of up to 32 MiB. It is a file that says itself what it holds (WAV, FLAC, MP3,
// Ogg), or raw samples that [WithAudioFormat] describes. What is larger can be streamed, see [Client.Transcribe].
// Without a deadline of ctx it may take 300 s. The client session id becomes the id of the request.
func (c *Client) TranscribeOnce(
	ctx context.Context, recording []byte, settings *TranscriptionSettings, options ...SessionOption,
) (*RecognizeResponse, error) {
	return c.recognize(ctx, &speechv1.RecognizeRequest{
		Source: &speechv1.RecognizeRequest_Content{Content: recording}, Settings: settings,
	}, options)
}

// TranscribeURI transcribes a recording at an http or https address, which the upstream fetches; see
// [Client.TranscribeOnce].
func (c *Client) TranscribeURI(
	ctx context.Context, uri string, settings *TranscriptionSettings, options ...SessionOption,
) (*RecognizeResponse, error) {
	return c.recognize(ctx, &speechv1.RecognizeRequest{
		Source: &speechv1.RecognizeRequest_Uri{Uri: uri}, Settings: settings,
	}, options)
}

func (c *Client) recognize(ctx context.Context, request *speechv1.RecognizeRequest, options []SessionOption) (
	*RecognizeResponse, error,
) {
	config, err := sessionConfigOf(options)
	if err != nil {
		return nil, err
	}
	request.AudioFormat, request.RequestId = config.audioFormat, config.clientSessionID
	if size := proto.Size(request); size > maxMessageBytes {
		return nil, requestTooLarge(strconv.Itoa(size), strconv.Itoa(maxMessageBytes), "content")
	}
	return unary(ctx, c, recognizeTimeout, func(ctx context.Context, channel *channel) (*RecognizeResponse, error) {
		return channel.transcription().Recognize(ctx, request)
	})
}

// unary makes one request for one answer, within limit where ctx has no deadline.
func unary[T any](
	ctx context.Context, c *Client, limit time.Duration, call func(context.Context, *channel) (T, error),
) (T, error) {
	defer runtime.KeepAlive(c)
	channel := c.in.channels.acquire()
	defer c.in.channels.release(channel)
	limited := ctx
	if _, hasDeadline := ctx.Deadline(); !hasDeadline {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	answer, err := call(channel.outgoing(limited, ""), channel)
	if err != nil {
		var none T
		return none, c.in.failed(ctx, channel, err, false)
	}
	return answer, nil
}

// VoiceFilter says which voices are wanted; what is empty leaves all.
type VoiceFilter struct {
	// Model leaves the voices of a model.
	Model string
	// LanguageCode leaves the voices that speak a language (BCP-47).
	LanguageCode string
}

// ListVoices are the voices of the catalogue, page by page. Without a deadline of ctx each page may take 30 s.
func (c *Client) ListVoices(ctx context.Context, filter VoiceFilter) iter.Seq2[*Voice, error] {
	return pages(func(token string) ([]*Voice, string, error) {
		answer, err := unary(ctx, c, unaryTimeout, func(ctx context.Context, channel *channel) (*speechv1.ListVoicesResponse, error) {
			return channel.synthesis().ListVoices(ctx, &speechv1.ListVoicesRequest{
				PageToken: token, Model: filter.Model, LanguageCode: filter.LanguageCode,
			})
		})
		return answer.GetVoices(), answer.GetNextPageToken(), err
	})
}

// pages gives the items of all pages.
func pages[T any](page func(token string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for token := ""; ; {
			items, next, err := page(token)
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}

// --- control over live sessions ------------------------------------------------------------------

// GetSession gives one live session; an error of KindSessionNotFound where there is none of that id.
func (c *Client) GetSession(ctx context.Context, sessionID string) (*SessionInfo, error) {
	answer, err := unary(ctx, c, unaryTimeout, func(ctx context.Context, channel *channel) (*speechv1.GetSessionResponse, error) {
		return channel.sessions().GetSession(ctx, &speechv1.GetSessionRequest{SessionId: sessionID})
	})
	return answer.GetSession(), err
}

// ListSessions are the caller's live sessions that have all of these labels, page by page. Without a deadline of ctx each
// page may take 30 s.
func (c *Client) ListSessions(ctx context.Context, labels map[string]string) iter.Seq2[*SessionInfo, error] {
	return pages(func(token string) ([]*SessionInfo, string, error) {
		answer, err := unary(ctx, c, unaryTimeout, func(ctx context.Context, channel *channel) (*speechv1.ListSessionsResponse, error) {
			return channel.sessions().ListSessions(ctx, &speechv1.ListSessionsRequest{PageToken: token, Labels: labels})
		})
		return answer.GetSessions(), answer.GetNextPageToken(), err
	})
}

// CloseSession ends a live session as its own End would: what is queued is finished.
func (c *Client) CloseSession(ctx context.Context, sessionID string) error {
	return c.closeSession(ctx, sessionID, false)
}

// DiscardSession ends a live session at once; what is pending is dropped.
func (c *Client) DiscardSession(ctx context.Context, sessionID string) error {
	return c.closeSession(ctx, sessionID, true)
}

func (c *Client) closeSession(ctx context.Context, sessionID string, discard bool) error {
	_, err := unary(ctx, c, unaryTimeout, func(ctx context.Context, channel *channel) (*speechv1.CloseSessionResponse, error) {
		return channel.sessions().CloseSession(ctx, &speechv1.CloseSessionRequest{SessionId: sessionID, Discard: discard})
	})
	return err
}

// --- traces --------------------------------------------------------------------------------------

// GetTrace gives the spans of a trace (32 hex digits) that the gateway still holds: the newest of this caller's calls. One
// that has not ended is not among them. Gives an error of KindSessionNotFound where none is held.
func (c *Client) GetTrace(ctx context.Context, traceID string) ([]*TraceSpan, error) {
	return c.trace(ctx, &speechv1.GetTraceRequest{Key: &speechv1.GetTraceRequest_TraceId{TraceId: traceID}})
}

// GetSessionTrace gives the spans of a session, live or ended; see [Client.GetTrace].
func (c *Client) GetSessionTrace(ctx context.Context, sessionID string) ([]*TraceSpan, error) {
	return c.trace(ctx, &speechv1.GetTraceRequest{Key: &speechv1.GetTraceRequest_SessionId{SessionId: sessionID}})
}

func (c *Client) trace(ctx context.Context, request *speechv1.GetTraceRequest) ([]*TraceSpan, error) {
	return unary(ctx, c, unaryTimeout, func(ctx context.Context, channel *channel) ([]*TraceSpan, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		call, err := channel.sessions().GetTrace(ctx, request)
		if err != nil {
			return nil, err
		}
		var spans []*TraceSpan
		for {
			answer, err := call.Recv()
			if errors.Is(err, io.EOF) {
				return spans, nil
			}
			if err != nil {
				return nil, channel.error(err, len(spans) > 0)
			}
			spans = append(spans, answer.GetSpans()...)
		}
	})
}
