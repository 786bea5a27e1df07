package wavegate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// messageBytes is the largest audio message where the gateway names no limit.
	messageBytes = 64 << 10
	// keptAudio is how much audio behind the last final transcript is kept for another gateway.
	keptAudio = 30 * time.Second
	// streamedPiece is the playing time of the pieces in which a reader's audio goes out.
	streamedPiece = 100 * time.Millisecond
)

// TranscriptionSession is a session of transcription: audio in, transcripts out. [Client.Transcribe] opens it. Transcripts
// that nobody reads yet are kept.
//
// A lost connection is made again within the resume window, as with a [SynthesisSession]. A session whose gateway shuts
// down moves to another one: the audio behind the last final transcript, which is kept here for that (30 s of it at
// most), is transcribed there, so that all offsets stay on one timeline and no word is lost or comes twice. What falls
// out of those 30 s in mid-segment is counted in SessionMoved.LostAudio. A session that sends OGG_OPUS stays where it is,
// and so does one whose input has ended.
type TranscriptionSession struct {
	client *Client // whose connections it uses
	in     *transcription
}

// segmentName is what a segment of a later session is called, and how many revisions it had before.
type segmentName struct {
	id       string
	revision int32
}

// transcription is the part of a session that lives until it is over.
type transcription struct {
	session
	prefix string
	count  int
	finals map[string]*Transcript // that answer a finalize under way; nil until there is one
	// Where audio lies is counted in bytes of a raw format, in samples at 48 kHz of Opus packets.
	zero           time.Duration
	position       int64
	covered        int64 // up to here there are final transcripts
	keptFrom       int64
	fallenOut      int64                  // how much was kept no longer before a final covered it
	hanging        *segmentName           // the open segment, and its revision
	names          map[string]segmentName // what segments of this session are called since a move
	fullText       string
	fullTextBefore string
	voiceOn        bool
	voiceAt        time.Duration
}

var transcriptionProtocol = protocol{
	open: func(ctx context.Context, c *channel) (grpc.ClientStream, error) {
		return c.transcription().TranscribeStream(ctx)
	},
	newMessage: func() proto.Message { return new(speechv1.TranscribeStreamResponse) },
	convert: func(message proto.Message) response {
		m := message.(*speechv1.TranscribeStreamResponse)
		r := response{sequence: m.GetSequence(), acknowledged: m.GetAcknowledgedInputSequence()}
		switch event := m.GetEvent().(type) {
		case *speechv1.TranscribeStreamResponse_SessionStarted:
			r.event = event.SessionStarted
		case *speechv1.TranscribeStreamResponse_Transcript:
			r.event = event.Transcript
		case *speechv1.TranscribeStreamResponse_SpeechStarted:
			r.event = event.SpeechStarted
		case *speechv1.TranscribeStreamResponse_SpeechEnded:
			r.event = event.SpeechEnded
		case *speechv1.TranscribeStreamResponse_Progress:
			r.event = event.Progress
		case *speechv1.TranscribeStreamResponse_SettingsAck:
			r.event = event.SettingsAck
		case *speechv1.TranscribeStreamResponse_Connection:
			r.event = event.Connection
		case *speechv1.TranscribeStreamResponse_Warning:
			r.event = event.Warning
		case *speechv1.TranscribeStreamResponse_GoAway:
			r.event = event.GoAway
		case *speechv1.TranscribeStreamResponse_SessionEnded:
			r.event = event.SessionEnded
		}
		return r
	},
}

func newTranscription(ctx context.Context, channels *channels, settings *TranscriptionSettings, config sessionConfig) *transcription {
	format := config.audioFormat
	if format == nil {
		format = &AudioFormat{Encoding: Linear16, SampleRateHertz: 16_000}
	}
	start := &speechv1.StartTranscription{
		AudioFormat:     format,
		Settings:        proto.CloneOf(settings),
		ClientSessionId: config.clientSessionID,
		Labels:          config.labels,
		KeepAlive:       config.keepAlive,
		ResumeWindow:    durationOrNil(config.resumeWindow),
	}
	t := &transcription{
		prefix: newPrefix(), finals: map[string]*Transcript{}, names: map[string]segmentName{}, voiceAt: -1,
	}
	if config.initialOffset != nil {
		start.InitialAudioOffset = durationpb.New(*config.initialOffset)
		t.zero = *config.initialOffset
	}
	// No limit on what waits to be read: a transcript is small, and the gateway must not stop taking audio because its
	// caller sends a whole file before reading the first word.
	t.init(ctx, t, channels, transcriptionProtocol, start, config)
	return t
}

// --- the session as callers see it ---------------------------------------------------------------

// ID is what SessionService and the gateway's logs call this session. It changes where the session moves.
func (s *TranscriptionSession) ID() string { return s.Started().GetSessionId() }

// Started is the gateway's first answer: limits, audio format, trace id. After a move, that of the other gateway.
func (s *TranscriptionSession) Started() *SessionStarted {
	defer runtime.KeepAlive(s)
	return s.in.startedNow()
}

// Settings are the settings in force, as far as acks have told, and their revision; changes from outside included.
func (s *TranscriptionSession) Settings() (*TranscriptionSettings, int64) {
	defer runtime.KeepAlive(s)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.settings.GetTranscription(), s.in.revision
}

// Ended is how the session ended, with its totals since the last move; nil until then.
func (s *TranscriptionSession) Ended() *SessionEnded {
	defer runtime.KeepAlive(s)
	return s.in.endedNow()
}

// GoAway is the gateway's notice that it will shut down; nil until then, and again once the session has moved.
func (s *TranscriptionSession) GoAway() *GoAway {
	defer runtime.KeepAlive(s)
	return s.in.goAwayNow()
}

// End says that no audio follows. What was sent is transcribed; the events go on until SessionEnded.
func (s *TranscriptionSession) End(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	return s.in.end(ctx, false)
}

// Discard ends the session now: what is not transcribed yet is dropped. SessionEnded still follows.
func (s *TranscriptionSession) Discard(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	return s.in.end(ctx, true)
}

// Finish leaves the session in good order: it ends the input, waits until everything that was sent is transcribed, and
// closes the session. Events that have not been read by then are thrown away, also where somebody still reads them: whoever
// wants all of it calls End and reads to the end of the events first. Gives the failure of the session if nothing has given
// it before. When ctx is done first, the session ends at once.
func (s *TranscriptionSession) Finish(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	if !s.in.isEnding() {
		// It may have ended by itself meanwhile.
		if err := s.in.end(ctx, false); err != nil && asError(err).Kind != KindSessionClosed {
			s.in.stop(nil)
			return err
		}
	}
	return s.in.complete(ctx)
}

// Close ends the session at once, at the gateway too, and waits until none of its goroutines is left. Once the session is
// over it has no effect. Gives the failure of the session if nothing has given it before.
func (s *TranscriptionSession) Close() error {
	defer runtime.KeepAlive(s)
	return s.in.close()
}

// Events are all events in order, SessionEnded last; then the failure of the session if there is one. Leaving the loop
// keeps the rest for the next. See [Event] for what they are.
func (s *TranscriptionSession) Events(ctx context.Context) iter.Seq2[Event, error] {
	return sequence(func() (Event, error) { return s.Next(ctx) })
}

// Next waits for the next event; io.EOF behind the last. Giving up the wait loses nothing.
func (s *TranscriptionSession) Next(ctx context.Context) (Event, error) {
	defer runtime.KeepAlive(s)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.next(ctx, func() bool { return false })
}

// Transcripts are partial and final transcripts, to the end of the session; other events are passed over.
func (s *TranscriptionSession) Transcripts(ctx context.Context) iter.Seq2[*Transcript, error] {
	return func(yield func(*Transcript, error) bool) {
		for event, err := range s.Events(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			if transcript, ok := event.(*Transcript); ok && !yield(transcript, nil) {
				return
			}
		}
	}
}

// Finals are final transcripts, to the end of the session; other events are passed over.
func (s *TranscriptionSession) Finals(ctx context.Context) iter.Seq2[*Transcript, error] {
	return func(yield func(*Transcript, error) bool) {
		for transcript, err := range s.Transcripts(ctx) {
			if err != nil || transcript.GetIsFinal() {
				if !yield(transcript, err) {
					return
				}
			}
		}
	}
}

// --- audio ---------------------------------------------------------------------------------------

// SendAudio sends audio in the session's format, of any length; one packet where that is raw Opus. It returns when the
// audio has gone, or is kept while there is no connection. The content may be used again then.
func (s *TranscriptionSession) SendAudio(ctx context.Context, content []byte) error {
	return s.SendAudioAt(ctx, content, time.Time{})
}

// SendAudioAt sends audio whose first sample was recorded at a time, with which the gateway measures the capture latency.
func (s *TranscriptionSession) SendAudioAt(ctx context.Context, content []byte, recorded time.Time) error {
	defer runtime.KeepAlive(s)
	started := s.in.startedNow()
	limit := int(started.GetLimits().GetMaxAudioMessageBytes())
	if limit == 0 {
		limit = messageBytes
	}
	for piece := range audioPieces(content, started.GetAudioFormat(), limit) {
		input := &speechv1.AudioInput{Content: bytes.Clone(piece)}
		if !recorded.IsZero() {
			input.CaptureTime = timestamppb.New(recorded)
			recorded = time.Time{}
		}
		if _, err := s.in.send(ctx, input, nil); err != nil {
			return err
		}
	}
	return nil
}

// Writer gives a writer that sends what is written to it; each write is a packet where the format is raw Opus. ctx
// governs every write.
func (s *TranscriptionSession) Writer(ctx context.Context) io.Writer {
	return audioWriter{ctx, s}
}

type audioWriter struct {
	ctx     context.Context
	session *TranscriptionSession
}

// Write implements io.Writer.
func (w audioWriter) Write(p []byte) (int, error) {
	if err := w.session.SendAudio(w.ctx, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// StreamOption says how audio is streamed.
type StreamOption func(*streamOptions)

type streamOptions struct{ paced bool }

// WithPace holds audio that is there at once back to the speed at which it was spoken. It needs a format with a fixed rate.
func WithPace() StreamOption {
	return func(o *streamOptions) { o.paced = true }
}

// StreamAudio sends audio as it comes from a microphone, a call or a file of raw samples, and returns when the source has
// ended. Raw Opus has no place here, since a reader does not tell where a packet ends. What the reader gives as an error
// is given back. A reader that blocks is left only when it returns.
func (s *TranscriptionSession) StreamAudio(ctx context.Context, source io.Reader, options ...StreamOption) error {
	var chosen streamOptions
	for _, option := range options {
		option(&chosen)
	}
	format := s.Started().GetAudioFormat()
	rate := bytesPerSecond(format)
	switch {
	case format.GetEncoding() == Opus:
		return argumentError("a reader does not tell where an Opus packet ends: send each with SendAudio")
	case chosen.paced && rate == 0:
		return argumentError("%v has no fixed rate of bytes, and so no pace", format.GetEncoding())
	}
	size := messageBytes
	if rate > 0 {
		size = int(streamedPiece.Seconds() * float64(rate))
		size -= size % sampleBytes(format)
	}
	pace := pacer{bytesPerSecond: float64(rate)}
	buffer := make([]byte, size)
	for {
		n, err := source.Read(buffer)
		if n > 0 {
			if chosen.paced && !sleep(ctx, pace.delay(n, time.Now())) {
				return contextError(ctx)
			}
			if err := s.SendAudio(ctx, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Finalize says that a turn ends here, and waits for the final transcript of what was sent so far; empty if nothing was
// said. The transcript is also among the events. Giving up the wait does not take the request back.
func (s *TranscriptionSession) Finalize(ctx context.Context) (*Transcript, error) {
	return s.FinalizeAs(ctx, "")
}

// FinalizeAs is Finalize with an id of the caller's own, which the transcript carries.
func (s *TranscriptionSession) FinalizeAs(ctx context.Context, finalizeID string) (*Transcript, error) {
	defer runtime.KeepAlive(s)
	return s.in.finalize(ctx, finalizeID)
}

// UpdateSettings changes settings from here on in the audio; returns once the change is applied, superseded or validated.
// Settings that are not set stay; [WithReset] names those to put back to their defaults. Most need a new connection to
// the upstream, made at the end of speech unless [WithApply] says otherwise; no audio is lost in it. What the gateway
// refuses is an error, and then nothing has changed. Giving up the wait does not take the change back.
func (s *TranscriptionSession) UpdateSettings(ctx context.Context, settings *TranscriptionSettings, options ...UpdateOption) (
	*SettingsAck, error,
) {
	defer runtime.KeepAlive(s)
	u, mask, err := newUpdate(options, &TranscriptionSettings{})
	if err != nil {
		return nil, err
	}
	return s.in.update(ctx, u.id, func(updateID string) proto.Message {
		return &speechv1.UpdateTranscriptionSettings{
			UpdateId: updateID, Settings: proto.CloneOf(settings), ResetMask: mask, ApplyPolicy: u.apply,
			ExpectedRevision: u.expectedRevision, ValidateOnly: u.validateOnly,
		}
	})
}

// --- inside --------------------------------------------------------------------------------------

func (s *transcription) finalize(ctx context.Context, finalizeID string) (*Transcript, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if finalizeID == "" {
		s.count++
		finalizeID = s.prefix + "-" + strconv.Itoa(s.count)
	}
	if _, busy := s.finals[finalizeID]; busy {
		return nil, argumentError("finalize %q of this session is still under way", finalizeID)
	}
	s.finals[finalizeID] = nil
	defer delete(s.finals, finalizeID)
	if _, err := s.sendLocked(ctx, &speechv1.Finalize{FinalizeId: finalizeID}, nil); err != nil {
		return nil, err
	}
	if err := s.until(ctx, func() bool { return s.finals[finalizeID] != nil }); err != nil {
		return nil, err
	}
	return s.finals[finalizeID], nil
}

func (s *transcription) format() *AudioFormat { return s.started.GetAudioFormat() }

func (s *transcription) note(event Event) Event {
	switch event := event.(type) {
	case *Transcript:
		if seen := s.noteTranscript(event); seen != nil {
			return seen
		}
		return nil
	case *SettingsAck:
		if event.GetState() == speechv1.SettingsAck_STATE_APPLIED &&
			event.GetMechanism() == speechv1.SettingsAck_MECHANISM_RECONNECT {
			// All before it is final with the old settings; a session elsewhere would hear it with the new ones.
			s.cover(s.positionAt(event.GetAudioOffset().AsDuration()))
		}
	case *SpeechStarted:
		if !s.noteVoice(true, event.GetAudioOffset().AsDuration()) {
			return nil
		}
	case *SpeechEnded:
		if !s.noteVoice(false, event.GetAudioOffset().AsDuration()) {
			return nil
		}
	}
	return event
}

// noteVoice gives false for what is heard again, where audio was sent again.
func (s *transcription) noteVoice(begins bool, at time.Duration) bool {
	if s.moves > 0 && (begins == s.voiceOn || at <= s.voiceAt) {
		return false
	}
	s.voiceOn, s.voiceAt = begins, at
	return true
}

func (s *transcription) noteTranscript(transcript *Transcript) *Transcript {
	end := s.positionAt(transcript.GetEndOffset().AsDuration())
	if s.moves > 0 {
		if transcript.GetText() != "" && transcript.GetFinalizeId() == "" && end <= s.covered {
			return nil // a final of the session before has said it
		}
		transcript = s.renamed(transcript)
	}
	if !transcript.GetIsFinal() {
		if transcript.GetText() != "" {
			s.hanging = &segmentName{transcript.GetSegmentId(), transcript.GetSegmentRevision()}
		}
	} else {
		if s.hanging != nil && s.hanging.id == transcript.GetSegmentId() {
			s.hanging = nil
		}
		key := inputKey{"finalize", transcript.GetFinalizeId()}
		if transcript.GetText() != "" {
			for _, item := range s.unfinished {
				if item.key == key {
					end = max(end, item.end)
				}
			}
			s.cover(end)
		}
		if transcript.GetFullText() != "" {
			s.fullText = transcript.GetFullText()
		}
		s.settle(key)
	}
	if _, awaited := s.finals[transcript.GetFinalizeId()]; awaited {
		s.finals[transcript.GetFinalizeId()] = transcript
	}
	return transcript
}

func (s *transcription) size(Event) int { return 0 }

func (s *transcription) stopInput() {}

func (s *transcription) awaitInput() {}

func (s *transcription) request(sequence int64, input proto.Message) proto.Message {
	r := &speechv1.TranscribeStreamRequest{InputSequence: sequence}
	switch input := input.(type) {
	case *speechv1.StartTranscription:
		r.Input = &speechv1.TranscribeStreamRequest_Start{Start: input}
	case *speechv1.AudioInput:
		r.Input = &speechv1.TranscribeStreamRequest_Audio{Audio: input}
	case *speechv1.Finalize:
		r.Input = &speechv1.TranscribeStreamRequest_Finalize{Finalize: input}
	case *speechv1.UpdateTranscriptionSettings:
		r.Input = &speechv1.TranscribeStreamRequest_UpdateSettings{UpdateSettings: input}
	case *speechv1.EndSession:
		r.Input = &speechv1.TranscribeStreamRequest_EndSession{EndSession: input}
	}
	return r
}

func (s *transcription) resumption(sessionID string, lastReceived int64) proto.Message {
	return &speechv1.StartTranscription{ResumeSessionId: sessionID, LastReceivedSequence: lastReceived}
}

// --- moving --------------------------------------------------------------------------------------

// renamed gives a transcript of a later session: the open segment is said again there, and goes on under its name.
func (s *transcription) renamed(transcript *Transcript) *Transcript {
	segmentID := transcript.GetSegmentId()
	name, known := s.names[segmentID]
	if !known {
		name = segmentName{fmt.Sprintf("%s.%d", segmentID, s.moves), 0}
		if transcript.GetText() != "" && s.hanging != nil && !s.isNamed(s.hanging.id) {
			name = *s.hanging
		}
		s.names[segmentID] = name
	}
	if transcript.GetIsFinal() {
		delete(s.names, segmentID)
	}
	changed := proto.CloneOf(transcript)
	changed.SegmentId = name.id
	changed.SegmentRevision += name.revision
	if changed.GetFullText() != "" {
		changed.FullText = strings.TrimLeft(s.fullTextBefore+" "+changed.GetFullText(), " ")
	}
	return changed
}

func (s *transcription) isNamed(id string) bool {
	for _, name := range s.names {
		if name.id == id {
			return true
		}
	}
	return false
}

// unitsPerSecond is the rate in which positions count.
func (s *transcription) unitsPerSecond() float64 {
	if s.format().GetEncoding() == Opus {
		return opusSamplesPerSecond
	}
	return float64(bytesPerSecond(s.format()))
}

func (s *transcription) unitWidth() int64 { return int64(max(sampleBytes(s.format()), 1)) }

func (s *transcription) positionAt(offset time.Duration) int64 {
	if !s.canMove() {
		return 0
	}
	width := s.unitWidth()
	return int64(math.RoundToEven((offset-s.zero).Seconds()*s.unitsPerSecond()/float64(width))) * width
}

func (s *transcription) timeOf(units int64) time.Duration {
	return time.Duration(math.Round(float64(units) / s.unitsPerSecond() * float64(time.Second)))
}

func (s *transcription) keep(input proto.Message) {
	start := s.position
	switch input := input.(type) {
	case *speechv1.AudioInput:
		if !s.canMove() {
			return
		}
		if s.format().GetEncoding() == Opus {
			s.position += opusSamples(input.GetContent())
		} else {
			s.position += int64(len(input.GetContent()))
		}
		s.unfinished = append(s.unfinished, unfinished{inputKey{"audio", ""}, input, start, s.position})
		// While another session is being opened, what that one starts from has to stay.
		limit := int64(keptAudio.Seconds() * s.unitsPerSecond())
		for !s.paused && s.position-s.keptFrom > limit && s.dropOldest() {
			continue
		}
	case *speechv1.Finalize:
		s.unfinished = append(s.unfinished, unfinished{inputKey{"finalize", input.GetFinalizeId()}, input, start, start})
	}
}

// dropOldest gives up the oldest audio; false where there is none.
func (s *transcription) dropOldest() bool {
	for index, item := range s.unfinished {
		if item.key.kind != "audio" {
			continue
		}
		if s.hanging != nil || s.givenUp { // else it was heard, and there was nothing in it
			s.fallenOut += item.end - s.keptFrom
		}
		copy(s.unfinished[1:index+1], s.unfinished[:index])
		s.unfinished[0] = unfinished{}
		s.unfinished = s.unfinished[1:]
		s.keptFrom = item.end
		return true
	}
	return false
}

func (s *transcription) cover(position int64) {
	s.covered = max(s.covered, min(position, s.position))
	s.keptFrom = max(s.keptFrom, s.covered)
	s.fallenOut = 0
	kept := s.unfinished[:0]
	for _, item := range s.unfinished {
		if item.key.kind != "audio" || item.end > s.covered {
			kept = append(kept, item)
		}
	}
	clear(s.unfinished[len(kept):])
	s.unfinished = kept
}

func (s *transcription) isIdle() bool { return !s.inputEnded } // else it ends by itself, soon

func (s *transcription) canMove() bool {
	return s.format().GetEncoding() != OggOpus // it would have to be cut between pages
}

// goesOnAt is where another session begins: a sample that is there whole, of a packet its beginning.
func (s *transcription) goesOnAt() int64 {
	for _, item := range s.unfinished {
		if item.key.kind != "audio" {
			continue
		}
		if s.format().GetEncoding() == Opus {
			return item.start
		}
		width := s.unitWidth()
		return (max(item.start, s.covered) + width - 1) / width * width
	}
	return s.position
}

func (s *transcription) startElsewhere() proto.Message {
	start := proto.CloneOf(s.start.(*speechv1.StartTranscription))
	if s.settings != nil {
		start.Settings = proto.CloneOf(s.settings.GetTranscription())
	}
	start.InitialAudioOffset = durationpb.New(s.zero + s.timeOf(s.goesOnAt()))
	return start
}

func (s *transcription) carryOver() time.Duration {
	lost := s.timeOf(s.fallenOut)
	at := s.goesOnAt()
	kept := s.unfinished[:0]
	for _, item := range s.unfinished {
		if item.key.kind == "audio" && item.start < at {
			if item.end <= at {
				continue // the gateway takes no empty piece
			}
			content := item.input.(*speechv1.AudioInput).GetContent()
			item = unfinished{item.key, &speechv1.AudioInput{Content: content[at-item.start:]}, at, item.end}
		}
		kept = append(kept, item)
	}
	clear(s.unfinished[len(kept):])
	s.unfinished = kept
	s.fallenOut = 0
	clear(s.names)
	s.fullTextBefore = s.fullText
	return lost
}

func (s *transcription) whatIsLost() string {
	if s.position <= s.covered {
		return ""
	}
	return fmt.Sprintf("the transcript of the audio from %.2f s on", (s.zero + s.timeOf(s.covered)).Seconds())
}
