package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"runtime"
	"strings"
	"sync"
	"time"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// command is what the judge says. Which fields count is decided by Do.
type command struct {
	ID json.RawMessage `json:"id"`
	Do string          `json:"do"`

	Client  string `json:"client"`
	Session string `json:"session"`
	Control string `json:"control"`

	Targets  []string          `json:"targets"`
	TLS      *tlsFiles         `json:"tls"`
	Token    *string           `json:"token"`
	Metadata map[string]string `json:"metadata"`

	Settings           json.RawMessage   `json:"settings"`
	AudioFormat        json.RawMessage   `json:"audio_format"`
	Labels             map[string]string `json:"labels"`
	ClientSessionID    string            `json:"client_session_id"`
	MaxAudioLead       *float64          `json:"max_audio_lead"`
	ResumeWindow       *float64          `json:"resume_window"`
	Move               *bool             `json:"move"`
	OpenTimeout        *float64          `json:"open_timeout"`
	Traceparent        string            `json:"traceparent"`
	KeepAlive          *bool             `json:"keep_alive"`
	InitialAudioOffset *float64          `json:"initial_audio_offset"`
	Events             *bool             `json:"events"`
	On                 *bool             `json:"on"`

	Text           string   `json:"text"`
	Tokens         []string `json:"tokens"`
	Interval       float64  `json:"interval"`
	FailAfter      *int     `json:"fail_after"`
	UtteranceID    string   `json:"utterance_id"`
	EndUtterance   bool     `json:"end_utterance"`
	PlaybackOffset *float64 `json:"playback_offset"`

	Content []byte   `json:"content"`
	URI     string   `json:"uri"`
	Pace    *float64 `json:"pace"`
	Piece   *float64 `json:"piece"`
	Timeout *float64 `json:"timeout"`

	Reset              []string        `json:"reset"`
	Apply              string          `json:"apply"`
	ExpectedRevision   *int64          `json:"expected_revision"`
	ValidateOnly       bool            `json:"validate_only"`
	UpdateID           string          `json:"update_id"`
	Synthesis          json.RawMessage `json:"synthesis"`
	Transcription      json.RawMessage `json:"transcription"`
	AfterInputSequence *int64          `json:"after_input_sequence"`
	Watch              bool            `json:"watch"`

	RequestID    string `json:"request_id"`
	Model        string `json:"model"`
	LanguageCode string `json:"language_code"`
	SessionID    string `json:"session_id"`
	TraceID      string `json:"trace_id"`
	Discard      bool   `json:"discard"`
}

type tlsFiles struct {
	RootCertificates string `json:"root_certificates"`
	PrivateKey       string `json:"private_key"`
	CertificateChain string `json:"certificate_chain"`
}

// driver holds what the judge has opened.
type driver struct {
	out *output

	mu       sync.Mutex
	clients  map[string]*wavegate.Client
	sessions map[string]*session
	controls map[string]*control
}

// session is a session of either kind, with what reads its events.
type session struct {
	name          string
	synthesis     *wavegate.SynthesisSession
	transcription *wavegate.TranscriptionSession

	mu     sync.Mutex
	cancel context.CancelFunc // of the reading; nil while nobody reads
	done   chan struct{}
	over   bool
}

type control struct {
	stream *wavegate.SettingsStream
	done   chan struct{}
}

// errArgument is for a command that names what there is not.
func errArgument(text string) error {
	return &wavegate.Error{Kind: wavegate.KindArgument, Code: codes.InvalidArgument, Message: text}
}

func seconds(s *float64) (time.Duration, bool) {
	if s == nil {
		return 0, false
	}
	return time.Duration(*s * float64(time.Second)), true
}

// read reads a message in its JSON form; absent and null leave it as it is.
func read(from json.RawMessage, into proto.Message) error {
	if len(from) == 0 || string(from) == "null" {
		return nil
	}
	if err := protojson.Unmarshal(from, into); err != nil {
		return errArgument(err.Error())
	}
	return nil
}

func (d *driver) do(ctx context.Context, c *command) (fields, error) {
	switch c.Do {
	case "hello":
		return fields{"language": "go", "version": wavegate.Version, "features": []string{}}, nil
	case "connect":
		return fields{}, d.connect(c)
	case "close_client":
		client, err := d.client(c)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		delete(d.clients, c.Client)
		d.mu.Unlock()
		begin(ctx)
		return fields{}, client.Close()
	case "open_synthesis", "open_transcription":
		return d.open(ctx, c)
	case "say", "say_tokens", "send_text", "flush", "end_utterance", "cancel", "report_playback", "wait", "read_utterance":
		s, err := d.session(c)
		if err != nil {
			return nil, err
		}
		if s.synthesis == nil {
			return nil, errArgument(c.Session + " does not speak")
		}
		return s.speak(ctx, c)
	case "send_audio", "finalize":
		s, err := d.session(c)
		if err != nil {
			return nil, err
		}
		if s.transcription == nil {
			return nil, errArgument(c.Session + " does not listen")
		}
		return s.listen(ctx, c)
	case "update_settings", "end", "discard", "close", "abort", "drop", "events":
		return d.steer(ctx, c)
	case "synthesize_once", "transcribe_once", "list_voices", "get_session", "close_session", "list_sessions", "get_trace":
		client, err := d.client(c)
		if err != nil {
			return nil, err
		}
		return once(ctx, client, c)
	case "open_control", "control_update", "close_control":
		return d.control(ctx, c)
	case "leaks":
		begin(ctx)
		return fields{"leaked": d.leaks()}, nil
	}
	return nil, errNotImplemented
}

// --- clients -------------------------------------------------------------------------------------

func (d *driver) connect(c *command) error {
	options := []wavegate.Option{wavegate.WithTargets(c.Targets...), wavegate.WithMetadata(c.Metadata)}
	if c.Token != nil {
		options = append(options, wavegate.WithToken(*c.Token))
	}
	if c.TLS != nil {
		options = append(options, wavegate.WithTLS(&tls.Config{MinVersion: tls.VersionTLS12}))
		if c.TLS.RootCertificates != "" {
			options = append(options, wavegate.WithRootCertificates([]byte(c.TLS.RootCertificates)))
		}
		if c.TLS.CertificateChain != "" || c.TLS.PrivateKey != "" {
			options = append(options, wavegate.WithClientCertificate([]byte(c.TLS.CertificateChain), []byte(c.TLS.PrivateKey)))
		}
	}
	client, err := wavegate.NewClient("", options...)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients[c.Client] = client
	return nil
}

func (d *driver) client(c *command) (*wavegate.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if client := d.clients[c.Client]; client != nil {
		return client, nil
	}
	return nil, errArgument("there is no client " + c.Client)
}

func (d *driver) closeAll() {
	d.mu.Lock()
	clients, sessions, controls := d.clients, d.sessions, d.controls
	d.clients, d.sessions, d.controls = map[string]*wavegate.Client{}, map[string]*session{}, map[string]*control{}
	d.mu.Unlock()
	for _, client := range clients {
		_ = client.Close()
	}
	for _, s := range sessions {
		s.stopReading()
	}
	for _, k := range controls {
		<-k.done
	}
}

// --- sessions ------------------------------------------------------------------------------------

func (d *driver) open(ctx context.Context, c *command) (fields, error) {
	client, err := d.client(c)
	if err != nil {
		return nil, err
	}
	options := []wavegate.SessionOption{
		wavegate.WithLabels(c.Labels), wavegate.WithClientSessionID(c.ClientSessionID),
	}
	if len(c.AudioFormat) > 0 && string(c.AudioFormat) != "null" {
		format := &wavegate.AudioFormat{}
		if err := read(c.AudioFormat, format); err != nil {
			return nil, err
		}
		options = append(options, wavegate.WithAudioFormat(format))
	}
	if lead, given := seconds(c.MaxAudioLead); given {
		options = append(options, wavegate.WithMaxAudioLead(lead))
	}
	if window, given := seconds(c.ResumeWindow); given {
		options = append(options, wavegate.WithResumeWindow(window))
	}
	if timeout, given := seconds(c.OpenTimeout); given {
		options = append(options, wavegate.WithOpenTimeout(timeout))
	}
	if offset, given := seconds(c.InitialAudioOffset); given {
		options = append(options, wavegate.WithInitialAudioOffset(offset))
	}
	if c.KeepAlive != nil {
		options = append(options, wavegate.WithKeepAlive(*c.KeepAlive))
	}
	if c.Move != nil && !*c.Move {
		options = append(options, wavegate.WithoutMoving())
	}
	begin(ctx)
	ctx = context.WithoutCancel(ctx) // it is the session's
	if c.Traceparent != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": c.Traceparent})
	}
	s := &session{name: c.Session}
	var started *wavegate.SessionStarted
	if c.Do == "open_synthesis" {
		settings := &wavegate.SynthesisSettings{}
		if err := read(c.Settings, settings); err != nil {
			return nil, err
		}
		if s.synthesis, err = client.Synthesize(ctx, settings, options...); err != nil {
			return nil, err
		}
		started = s.synthesis.Started()
	} else {
		settings := &wavegate.TranscriptionSettings{}
		if err := read(c.Settings, settings); err != nil {
			return nil, err
		}
		if s.transcription, err = client.Transcribe(ctx, settings, options...); err != nil {
			return nil, err
		}
		started = s.transcription.Started()
	}
	d.mu.Lock()
	d.sessions[c.Session] = s
	d.mu.Unlock()
	if c.Events == nil || *c.Events {
		s.startReading(d.out)
	}
	return fields{"session_started": message(started)}, nil
}

func (d *driver) session(c *command) (*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions[c.Session]; s != nil {
		return s, nil
	}
	return nil, errArgument("there is no session " + c.Session)
}

func (d *driver) forget(c *command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, c.Session)
}

func (s *session) next(ctx context.Context) (wavegate.Event, error) {
	if s.synthesis != nil {
		return s.synthesis.Next(ctx)
	}
	return s.transcription.Next(ctx)
}

func (s *session) startReading(out *output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.cancel, s.done = cancel, done
	go func() {
		defer close(done)
		for {
			event, err := s.next(ctx)
			switch {
			case err == nil:
				out.write(fields{"session": s.name, "event": eventFields(event, (*speechv1.SynthesizeStreamResponse)(nil), (*speechv1.TranscribeStreamResponse)(nil))})
				continue
			case ctx.Err() != nil: // by the judge's wish
			case errors.Is(err, io.EOF):
				s.setOver()
				out.write(fields{"session": s.name, "over": nil})
			default:
				s.setOver()
				out.write(fields{"session": s.name, "over": errorFields(err)})
			}
			return
		}
	}()
}

func (s *session) stopReading() {
	s.mu.Lock()
	cancel, done := s.cancel, s.done
	s.cancel, s.done = nil, nil
	s.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// waitForReading waits until the reading has come to the end of a session that is over.
func (s *session) waitForReading() {
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	if done != nil {
		<-done
	}
}

// eventFields gives an event as an arm of one of these responses.
func eventFields(event wavegate.Event, responses ...proto.Message) fields {
	switch event := event.(type) {
	case *wavegate.SessionResumed:
		return fields{"session_resumed": fields{
			"session_id": event.SessionID, "outage": event.Outage.Seconds(), "attempts": event.Attempts,
		}}
	case *wavegate.SessionMoved:
		return fields{"session_moved": fields{
			"session_started": message(event.Started), "previous_session_id": event.PreviousSessionID,
			"target": event.Target, "lost_audio": event.LostAudio.Seconds(),
		}}
	}
	m, ok := event.(proto.Message)
	if !ok {
		return fields{}
	}
	return fields{armOf(m, responses): message(m)}
}

// armOf is the name of the arm that holds such a message in a response.
func armOf(m proto.Message, responses []proto.Message) string {
	for _, of := range responses {
		arms := of.ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
		for i := range arms.Len() {
			if arms.Get(i).Message().FullName() == m.ProtoReflect().Descriptor().FullName() {
				return string(arms.Get(i).Name())
			}
		}
	}
	return "unknown"
}

// --- speaking ------------------------------------------------------------------------------------

// errIterator is what the iterator of say_tokens raises.
var errIterator = errors.New("the iterator of the driver fails, as it was told to")

func (s *session) speak(ctx context.Context, c *command) (fields, error) {
	var options []wavegate.UtteranceOption
	if c.UtteranceID != "" {
		options = append(options, wavegate.WithUtteranceID(c.UtteranceID))
	}
	if heard, given := seconds(c.PlaybackOffset); given && c.Do == "cancel" {
		options = append(options, wavegate.WithPlaybackOffset(heard))
	}
	var utterance *wavegate.Utterance
	var err error
	switch c.Do {
	case "say":
		utterance, err = s.synthesis.Say(ctx, c.Text, options...)
	case "say_tokens":
		utterance, err = s.synthesis.SayFunc(ctx, c.tokens, options...)
	case "send_text":
		if c.EndUtterance {
			options = append(options, wavegate.WithEndOfUtterance())
		}
		utterance, err = s.synthesis.SendText(ctx, c.Text, options...)
	case "flush":
		return fields{}, s.synthesis.Flush(ctx, options...)
	case "end_utterance":
		return fields{}, s.synthesis.EndUtterance(ctx, options...)
	case "cancel":
		return fields{}, s.synthesis.Cancel(ctx, options...)
	case "report_playback":
		played, _ := seconds(c.PlaybackOffset)
		return fields{}, s.synthesis.ReportPlayback(ctx, c.UtteranceID, played)
	case "wait", "read_utterance":
		utterance = s.synthesis.Utterance(c.UtteranceID)
		if utterance == nil {
			return nil, errArgument("there is no utterance " + c.UtteranceID)
		}
		if c.Do == "read_utterance" {
			audio, err := utterance.ReadAll(ctx)
			return fields{"audio": audio}, err
		}
		outcome, err := utterance.Wait(ctx)
		switch {
		case err != nil:
			return nil, err
		case outcome.Cancelled != nil:
			return fields{"utterance_cancelled": message(outcome.Cancelled)}, nil
		}
		return fields{"utterance_completed": message(outcome.Completed)}, nil
	}
	if err != nil {
		return nil, err
	}
	return fields{"utterance_id": utterance.ID()}, nil
}

// tokens brings the tokens of say_tokens.
func (c *command) tokens(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for at, token := range c.Tokens {
			if c.FailAfter != nil && at >= *c.FailAfter {
				yield("", errIterator)
				return
			}
			if at > 0 && c.Interval > 0 {
				select {
				case <-time.After(time.Duration(c.Interval * float64(time.Second))):
				case <-ctx.Done():
					return
				}
			}
			if !yield(token, nil) {
				return
			}
		}
		if c.FailAfter != nil && *c.FailAfter >= len(c.Tokens) {
			yield("", errIterator)
		}
	}
}

// --- listening -----------------------------------------------------------------------------------

func (s *session) listen(ctx context.Context, c *command) (fields, error) {
	if c.Do == "finalize" {
		transcript, err := s.transcription.Finalize(ctx)
		if err != nil {
			return nil, err
		}
		return fields{"transcript": message(transcript)}, nil
	}
	rate := byteRate(s.transcription.Started().GetAudioFormat())
	size := len(c.Content)
	if piece, given := seconds(c.Piece); given && rate > 0 {
		size = int(piece.Seconds() * rate)
	} else if c.Pace != nil && rate > 0 {
		size = int(0.1 * rate)
	}
	began := time.Now()
	source := bytes.NewReader(c.Content)
	for buffer := make([]byte, max(size, 1)); ; {
		n, err := source.Read(buffer)
		if err != nil {
			return fields{}, nil
		}
		if err := s.transcription.SendAudio(ctx, buffer[:n]); err != nil {
			return nil, err
		}
		if c.Pace != nil && *c.Pace > 0 && rate > 0 {
			sent := float64(len(c.Content) - source.Len())
			begin(ctx)
			time.Sleep(time.Until(began.Add(time.Duration(sent / rate / *c.Pace * float64(time.Second)))))
		}
	}
}

// byteRate is the rate of a raw format; 0 for a compressed one.
func byteRate(format *wavegate.AudioFormat) float64 {
	rate := float64(format.GetSampleRateHertz())
	switch format.GetEncoding() {
	case wavegate.Linear16:
		return 2 * rate
	case wavegate.Linear32:
		return 4 * rate
	case wavegate.Mulaw, wavegate.Alaw:
		return rate
	}
	return 0
}

// --- settings, and the end -----------------------------------------------------------------------

func (c *command) updateOptions() ([]wavegate.UpdateOption, error) {
	var options []wavegate.UpdateOption
	if c.Apply != "" {
		policy, known := speechv1.ApplyPolicy_value["APPLY_POLICY_"+strings.ToUpper(c.Apply)]
		if !known {
			return nil, errArgument("there is no policy " + c.Apply)
		}
		options = append(options, wavegate.WithApply(wavegate.ApplyPolicy(policy)))
	}
	if len(c.Reset) > 0 {
		options = append(options, wavegate.WithReset(c.Reset...))
	}
	if c.ExpectedRevision != nil {
		options = append(options, wavegate.WithExpectedRevision(*c.ExpectedRevision))
	}
	if c.ValidateOnly {
		options = append(options, wavegate.WithValidateOnly())
	}
	if c.UpdateID != "" {
		options = append(options, wavegate.WithUpdateID(c.UpdateID))
	}
	if c.AfterInputSequence != nil {
		options = append(options, wavegate.WithAfterInputSequence(*c.AfterInputSequence))
	}
	if c.Watch {
		options = append(options, wavegate.WithWatch())
	}
	return options, nil
}

func (d *driver) steer(ctx context.Context, c *command) (fields, error) {
	s, err := d.session(c)
	if err != nil {
		return nil, err
	}
	switch c.Do {
	case "update_settings":
		return s.update(ctx, c)
	case "events":
		if c.On != nil && *c.On {
			s.startReading(d.out)
		} else {
			s.stopReading()
		}
		return fields{}, nil
	case "end":
		if s.synthesis != nil {
			return fields{}, s.synthesis.End(ctx)
		}
		return fields{}, s.transcription.End(ctx)
	case "discard":
		if s.synthesis != nil {
			return fields{}, s.synthesis.Discard(ctx)
		}
		return fields{}, s.transcription.Discard(ctx)
	case "drop":
		s.stopReading()
		d.forget(c)
		s.synthesis, s.transcription = nil, nil
		s = nil
		for range 3 { // a cleanup runs behind the collection that found the object
			runtime.GC()
		}
		return fields{}, nil
	}
	// close and abort. The session is forgotten only by drop: a second close has no effect, and has to be seen to.
	if c.Do == "abort" {
		begin(ctx)
	}
	if s.synthesis != nil && c.Do == "close" {
		err = s.synthesis.Finish(ctx)
	} else if s.synthesis != nil {
		err = s.synthesis.Close()
	} else if c.Do == "close" {
		err = s.transcription.Finish(ctx)
	} else {
		err = s.transcription.Close()
	}
	s.setOver()
	s.waitForReading()
	return fields{}, err
}

func (s *session) update(ctx context.Context, c *command) (fields, error) {
	options, err := c.updateOptions()
	if err != nil {
		return nil, err
	}
	var ack *wavegate.SettingsAck
	if s.synthesis != nil {
		settings := &wavegate.SynthesisSettings{}
		if err := read(c.Settings, settings); err != nil {
			return nil, err
		}
		ack, err = s.synthesis.UpdateSettings(ctx, settings, options...)
	} else {
		settings := &wavegate.TranscriptionSettings{}
		if err := read(c.Settings, settings); err != nil {
			return nil, err
		}
		ack, err = s.transcription.UpdateSettings(ctx, settings, options...)
	}
	if err != nil {
		return nil, err
	}
	return fields{"settings_ack": message(ack)}, nil
}

// --- calls that are no session -------------------------------------------------------------------

func once(ctx context.Context, client *wavegate.Client, c *command) (fields, error) {
	if timeout, given := seconds(c.Timeout); given {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	options := []wavegate.SessionOption{wavegate.WithClientSessionID(c.RequestID)}
	if len(c.AudioFormat) > 0 && string(c.AudioFormat) != "null" {
		format := &wavegate.AudioFormat{}
		if err := read(c.AudioFormat, format); err != nil {
			return nil, err
		}
		options = append(options, wavegate.WithAudioFormat(format))
	}
	switch c.Do {
	case "synthesize_once":
		settings := &wavegate.SynthesisSettings{}
		if err := read(c.Settings, settings); err != nil {
			return nil, err
		}
		speech, err := client.SynthesizeOnce(ctx, c.Text, settings, options...)
		if err != nil {
			return nil, err
		}
		return fields{
			"audio": speech.Audio, "session_started": message(speech.Started),
			"utterance_completed": message(speech.Completed), "warnings": messages(speech.Warnings),
			"words": messages(speech.Words),
		}, nil
	case "transcribe_once":
		settings := &wavegate.TranscriptionSettings{}
		if err := read(c.Settings, settings); err != nil {
			return nil, err
		}
		var answer *wavegate.RecognizeResponse
		var err error
		if c.URI != "" {
			answer, err = client.TranscribeURI(ctx, c.URI, settings, options...)
		} else {
			answer, err = client.TranscribeOnce(ctx, c.Content, settings, options...)
		}
		if err != nil {
			return nil, err
		}
		told := fields{}
		encoded, _ := json.Marshal(message(answer))
		return told, json.Unmarshal(encoded, &told)
	case "list_voices":
		voices, err := collect(client.ListVoices(ctx, wavegate.VoiceFilter{Model: c.Model, LanguageCode: c.LanguageCode}))
		return fields{"voices": messages(voices)}, err
	case "list_sessions":
		sessions, err := collect(client.ListSessions(ctx, c.Labels))
		return fields{"sessions": messages(sessions)}, err
	case "get_session":
		info, err := client.GetSession(ctx, c.SessionID)
		if err != nil {
			return nil, err
		}
		return fields{"session": message(info)}, nil
	case "close_session":
		if c.Discard {
			return fields{}, client.DiscardSession(ctx, c.SessionID)
		}
		return fields{}, client.CloseSession(ctx, c.SessionID)
	}
	if c.TraceID != "" {
		spans, err := client.GetTrace(ctx, c.TraceID)
		return fields{"spans": messages(spans)}, err
	}
	spans, err := client.GetSessionTrace(ctx, c.SessionID)
	return fields{"spans": messages(spans)}, err
}

func collect[T any](all iter.Seq2[T, error]) ([]T, error) {
	var items []T
	for item, err := range all {
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// --- control -------------------------------------------------------------------------------------

func (d *driver) control(ctx context.Context, c *command) (fields, error) {
	if c.Do == "open_control" {
		client, err := d.client(c)
		if err != nil {
			return nil, err
		}
		stream, err := client.SettingsStream(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		k := &control{stream, make(chan struct{})}
		d.mu.Lock()
		d.controls[c.Control] = k
		d.mu.Unlock()
		go func() {
			defer close(k.done)
			for change, err := range stream.Changes(context.Background()) {
				if err != nil {
					return // the updates tell it
				}
				d.out.write(fields{
					"control": c.Control, "session_id": change.SessionID,
					"event": eventFields(change.Event, (*speechv1.UpdateSettingsResponse)(nil)),
				})
			}
		}()
		return fields{}, nil
	}
	d.mu.Lock()
	k := d.controls[c.Control]
	d.mu.Unlock()
	if k == nil {
		return nil, errArgument("there is no control " + c.Control)
	}
	if c.Do == "close_control" {
		err := k.stream.Finish(ctx)
		<-k.done
		return fields{}, err
	}
	options, err := c.updateOptions()
	if err != nil {
		return nil, err
	}
	var ack *wavegate.SettingsAck
	if len(c.Transcription) > 0 && string(c.Transcription) != "null" {
		settings := &wavegate.TranscriptionSettings{}
		if err := read(c.Transcription, settings); err != nil {
			return nil, err
		}
		ack, err = k.stream.UpdateTranscription(ctx, c.SessionID, settings, options...)
	} else {
		var settings *wavegate.SynthesisSettings
		if len(c.Synthesis) > 0 && string(c.Synthesis) != "null" {
			settings = &wavegate.SynthesisSettings{}
			if err := read(c.Synthesis, settings); err != nil {
				return nil, err
			}
		}
		ack, err = k.stream.UpdateSynthesis(ctx, c.SessionID, settings, options...)
	}
	if err != nil {
		return nil, err
	}
	return fields{"ack": message(ack)}, nil
}

// --- leaks ---------------------------------------------------------------------------------------

// leaks gives the goroutines of the client, and where no client is open those of gRPC, that still live after time to end
// and belong to nothing that is open.
func (d *driver) leaks() []string {
	runtime.GC() // which finds what was dropped
	var found []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if found = d.stray(); len(found) == 0 {
			break
		}
		runtime.GC()
	}
	return found
}

// goroutinesOfSession is how many of the client's goroutines an open session, or a control, has at most: those that read
// and write its call, that resume or move it and read and write the calls for that, and that send a text.
const goroutinesOfSession = 8

func (d *driver) stray() []string {
	buffer := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buffer, true)
		if n < len(buffer) {
			buffer = buffer[:n]
			break
		}
		buffer = make([]byte, 2*len(buffer))
	}
	d.mu.Lock()
	open, clients := 0, len(d.clients)
	for _, s := range d.sessions {
		if !s.isOver() {
			open++
		}
	}
	for _, k := range d.controls {
		select {
		case <-k.done:
		default:
			open++
		}
	}
	d.mu.Unlock()
	own, transport := []string{}, []string{}
	for stack := range strings.SplitSeq(string(buffer), "\n\n") {
		if strings.Contains(stack, "main.(*driver)") || strings.Contains(stack, "main.(*session)") ||
			strings.Contains(stack, "main.serve") && !strings.Contains(stack, "created by example.com") {
			continue // the driver's own
		}
		told := strings.Join(strings.Fields(stack), " ")
		switch {
		case strings.Contains(stack, "example.com/wavegate/clients/go."):
			own = append(own, told)
		case strings.Contains(stack, "google.golang.org/grpc"):
			transport = append(transport, told)
		}
	}
	leaked := []string{}
	if len(own) > open*goroutinesOfSession {
		leaked = append(leaked, own...)
	}
	if clients == 0 {
		leaked = append(leaked, transport...)
	}
	return leaked
}

func (s *session) setOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// isOver says whether the session needs no goroutine any more.
func (s *session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}
