package wavegate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// rememberedUtterances is how many ended ones are kept: late text must find that its utterance is over.
	rememberedUtterances = 256
	// audioBufferBytes is how much audio may lie unread in this process before reading stops: 1.4 s of the default format.
	// What is not read waits in the gateway, which can still drop it when the listener interrupts.
	audioBufferBytes = 64 << 10
)

// SynthesisSession is a session of speech synthesis: text in, audio out. [Client.Synthesize] opens it.
//
// Every text carries its utterance's id, so that a late piece of a cancelled utterance is never spoken.
//
// A lost connection is made again within the resume window: what was sent arrives once, what was said is delivered
// once, in order, with a [SessionResumed] in between. A session whose gateway shuts down moves to another one between
// two utterances, with a [SessionMoved]: the one that is being heard is finished where it is, those behind it are
// spoken by the other gateway. One that its gateway cannot finish in its time ends with [UtteranceFailed].
type SynthesisSession struct {
	client *Client // whose connections it uses
	in     *synthesis
}

// Utterance is a piece of speech that is being made, as [SynthesisSession.Say] gives it.
type Utterance struct {
	session *SynthesisSession
	of      *utterance
}

// PanicError is what a panic of the caller's own iterator becomes: it cancels the utterance and comes out of its handle,
// instead of ending the program from a goroutine that the caller does not see.
type PanicError struct {
	// Value is what was given to panic.
	Value any
	// Stack is where it happened.
	Stack []byte
}

// Error says what was given to panic.
func (e *PanicError) Error() string {
	return fmt.Sprintf("the iterator of the text panicked: %v", e.Value)
}

// utterance is the state of an utterance, guarded by the session's lock.
type utterance struct {
	id        string
	cancelled bool  // this side has cancelled it
	outcome   Event // how it ended; nil while it is being made
	text      *task // what still sends its text
	textError error
	consumed  bool // its last event has been taken out of the session's buffer
	started   bool
	heard     bool
	heardTime time.Duration // playing time of its audio so far
	placed    bool          // whether one of the gateway's sessions has its text,
	place     int           // and which
}

func (u *utterance) isOver() bool { return u.cancelled || u.outcome != nil }

// synthesis is the part of a session that lives until it is over.
type synthesis struct {
	session
	utterances map[string]*utterance
	order      []string // of the utterances, as they were made
	openID     string
	// Ids of our own never meet the caller's, nor those of a session that this one continues.
	prefix string
	count  int
	// One utterance's text at a time: the next one's would end it. The first has its turn.
	texts  []*task
	unseen map[string]error // of iterators, that nobody has asked for
	// What brings texts is not awaited for ever: an iterator of the caller's may block.
	bringing group
}

var synthesisProtocol = protocol{
	open: func(ctx context.Context, c *channel) (grpc.ClientStream, error) {
		return c.synthesis().SynthesizeStream(ctx)
	},
	newMessage: func() proto.Message { return new(speechv1.SynthesizeStreamResponse) },
	convert: func(message proto.Message) response {
		m := message.(*speechv1.SynthesizeStreamResponse)
		r := response{sequence: m.GetSequence(), acknowledged: m.GetAcknowledgedInputSequence()}
		switch event := m.GetEvent().(type) {
		case *speechv1.SynthesizeStreamResponse_SessionStarted:
			r.event = event.SessionStarted
		case *speechv1.SynthesizeStreamResponse_UtteranceStarted:
			r.event = event.UtteranceStarted
		case *speechv1.SynthesizeStreamResponse_Audio:
			r.event = event.Audio
		case *speechv1.SynthesizeStreamResponse_WordTimings:
			r.event = event.WordTimings
		case *speechv1.SynthesizeStreamResponse_UtteranceCompleted:
			r.event = event.UtteranceCompleted
		case *speechv1.SynthesizeStreamResponse_UtteranceCancelled:
			r.event = event.UtteranceCancelled
		case *speechv1.SynthesizeStreamResponse_UtteranceFailed:
			r.event = event.UtteranceFailed
		case *speechv1.SynthesizeStreamResponse_SettingsAck:
			r.event = event.SettingsAck
		case *speechv1.SynthesizeStreamResponse_Connection:
			r.event = event.Connection
		case *speechv1.SynthesizeStreamResponse_Warning:
			r.event = event.Warning
		case *speechv1.SynthesizeStreamResponse_GoAway:
			r.event = event.GoAway
		case *speechv1.SynthesizeStreamResponse_SessionEnded:
			r.event = event.SessionEnded
		}
		return r
	},
}

func newPrefix() string {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}

func newSynthesis(ctx context.Context, channels *channels, settings *SynthesisSettings, config sessionConfig) *synthesis {
	if settings == nil {
		settings = &SynthesisSettings{}
	}
	start := &speechv1.StartSynthesis{
		Settings:        proto.CloneOf(settings),
		AudioFormat:     config.audioFormat,
		ClientSessionId: config.clientSessionID,
		Labels:          config.labels,
		ResumeWindow:    durationOrNil(config.resumeWindow),
	}
	if config.maxAudioLead != nil {
		start.MaxAudioLead = durationpb.New(*config.maxAudioLead)
	}
	s := &synthesis{utterances: map[string]*utterance{}, prefix: newPrefix(), unseen: map[string]error{}}
	s.init(ctx, s, channels, synthesisProtocol, start, config)
	s.bufferLimit = audioBufferBytes
	return s
}

func durationOrNil(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// --- the session as callers see it ---------------------------------------------------------------

// ID is what SessionService and the gateway's logs call this session. It changes where the session moves.
func (s *SynthesisSession) ID() string { return s.Started().GetSessionId() }

// Started is the gateway's first answer: limits, audio format, trace id. After a move, that of the other gateway.
func (s *SynthesisSession) Started() *SessionStarted {
	defer runtime.KeepAlive(s)
	return s.in.startedNow()
}

// Settings are the settings in force, as far as acks have told, and their revision; changes from outside included.
func (s *SynthesisSession) Settings() (*SynthesisSettings, int64) {
	defer runtime.KeepAlive(s)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.settings.GetSynthesis(), s.in.revision
}

// Ended is how the session ended, with its totals since the last move; nil until then.
func (s *SynthesisSession) Ended() *SessionEnded {
	defer runtime.KeepAlive(s)
	return s.in.endedNow()
}

// GoAway is the gateway's notice that it will shut down; nil until then, and again once the session has moved.
func (s *SynthesisSession) GoAway() *GoAway {
	defer runtime.KeepAlive(s)
	return s.in.goAwayNow()
}

// End says that no text follows, once every iterator that was handed to the session has ended. All of it is still spoken;
// the events go on until SessionEnded.
func (s *SynthesisSession) End(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	return s.in.endInput(ctx)
}

// Discard ends the session now: what is not spoken yet is dropped. SessionEnded still follows.
func (s *SynthesisSession) Discard(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	s.in.mu.Lock()
	s.in.stopInput()
	s.in.mu.Unlock()
	return s.in.end(ctx, true)
}

// Finish leaves the session in good order: it ends the input, waits until everything that was sent is spoken, and closes
// the session. Events that have not been read by then are thrown away, also where somebody still reads them: whoever wants
// all of it calls End and reads to the end of the events first. Gives the failure of the session, or of an iterator
// of its text, if nothing has given it before. When ctx is done first, the session ends at once.
func (s *SynthesisSession) Finish(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	if !s.in.isEnding() {
		// It may have ended by itself meanwhile.
		if err := s.in.endInput(ctx); err != nil && asError(err).Kind != KindSessionClosed {
			s.in.stop(nil)
			return err
		}
	}
	if err := s.in.complete(ctx); err != nil {
		return err
	}
	return s.in.unseenError()
}

// Close ends the session at once, at the gateway too, and waits until none of its goroutines is left. Once the session is
// over it has no effect. Gives the failure of the session if nothing has given it before.
func (s *SynthesisSession) Close() error {
	defer runtime.KeepAlive(s)
	return s.in.close()
}

// Events are all events in order, SessionEnded last; then the failure of the session if there is one. Leaving the loop
// keeps the rest for the next. See [Event] for what they are.
func (s *SynthesisSession) Events(ctx context.Context) iter.Seq2[Event, error] {
	return sequence(func() (Event, error) { return s.Next(ctx) })
}

// Next waits for the next event; io.EOF behind the last. Giving up the wait loses nothing.
func (s *SynthesisSession) Next(ctx context.Context) (Event, error) {
	defer runtime.KeepAlive(s)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.take(ctx, func() bool { return false })
}

// Audio is the audio of all utterances, to the end of the session; other events are passed over. The failure of an
// utterance comes as an error, and the loop may go on behind it.
func (s *SynthesisSession) Audio(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for event, err := range s.Events(ctx) {
			switch event := event.(type) {
			case nil:
				yield(nil, err)
				return
			case *AudioChunk:
				if !yield(event.GetAudio(), nil) {
					return
				}
			case *UtteranceFailed:
				if !yield(nil, failureOf(event)) {
					return
				}
			}
		}
	}
}

// UpdateSettings changes settings from here on in the text; returns once the change is applied, superseded or validated.
// Settings that are not set stay; [WithReset] names those to put back to their defaults. Utterances that start later
// use them, with [ApplyImmediately] the rest of the open one too. What the gateway refuses is an error, and then nothing
// has changed. Giving up the wait does not take the change back.
func (s *SynthesisSession) UpdateSettings(ctx context.Context, settings *SynthesisSettings, options ...UpdateOption) (
	*SettingsAck, error,
) {
	defer runtime.KeepAlive(s)
	u, mask, err := newUpdate(options, &SynthesisSettings{})
	if err != nil {
		return nil, err
	}
	return s.in.update(ctx, u.id, func(updateID string) proto.Message {
		return &speechv1.UpdateSynthesisSettings{
			UpdateId: updateID, Settings: proto.CloneOf(settings), ResetMask: mask, ApplyPolicy: u.apply,
			ExpectedRevision: u.expectedRevision, ValidateOnly: u.validateOnly,
		}
	})
}

// --- text ----------------------------------------------------------------------------------------

type utteranceOptions struct {
	id       string
	end      bool
	playback *time.Duration
}

// UtteranceOption says which utterance is meant, and more about it.
type UtteranceOption func(*utteranceOptions)

// WithUtteranceID names the utterance: `[A-Za-z0-9_.-]{1,128}`. Without it a new utterance gets an id of the
// session's own, and a call that is about one is about the open one.
func WithUtteranceID(id string) UtteranceOption {
	return func(o *utteranceOptions) { o.id = id }
}

// WithEndOfUtterance says that the text of [SynthesisSession.SendText] is the last of its utterance.
func WithEndOfUtterance() UtteranceOption {
	return func(o *utteranceOptions) { o.end = true }
}

// WithPlaybackOffset says how much of the utterance's audio the listener has heard when it is cancelled. Without it the
// latest [SynthesisSession.ReportPlayback] counts, and without that all audio that was sent.
func WithPlaybackOffset(heard time.Duration) UtteranceOption {
	return func(o *utteranceOptions) { o.playback = &heard }
}

func utteranceOptionsOf(options []UtteranceOption) (chosen utteranceOptions) {
	for _, option := range options {
		option(&chosen)
	}
	return chosen
}

// Say speaks one utterance, after those before it. It returns when the text is sent, or at once where an iterator still
// brings the text of another utterance; the text waits for its turn then. An error of KindArgument says that the id
// is that of an utterance which is over.
func (s *SynthesisSession) Say(ctx context.Context, text string, options ...UtteranceOption) (*Utterance, error) {
	defer runtime.KeepAlive(s)
	u, err := s.in.say(ctx, text, nil, options)
	if err != nil {
		return nil, err
	}
	return &Utterance{s, u}, nil
}

// SayFunc speaks one utterance whose text is made while it is spoken, such as by a language model. The handle is there at
// once. text is called with a context that is done as soon as nobody wants the text any more: the utterance was
// cancelled, has failed or its session is over. An error that it yields cancels the utterance, and comes out of the
// handle, or of Finish if nobody asked; a panic becomes a [PanicError]. An iterator that blocks without minding its
// context is stopped only when it yields; Close waits 2 s for it at most.
func (s *SynthesisSession) SayFunc(
	ctx context.Context, text func(ctx context.Context) iter.Seq2[string, error], options ...UtteranceOption,
) (*Utterance, error) {
	defer runtime.KeepAlive(s)
	u, err := s.in.say(ctx, "", text, options)
	if err != nil {
		return nil, err
	}
	return &Utterance{s, u}, nil
}

// SaySeq2 speaks one utterance whose text comes from an iterator that may fail; see [SynthesisSession.SayFunc].
func (s *SynthesisSession) SaySeq2(ctx context.Context, text iter.Seq2[string, error], options ...UtteranceOption) (
	*Utterance, error,
) {
	return s.SayFunc(ctx, func(context.Context) iter.Seq2[string, error] { return text }, options...)
}

// SaySeq speaks one utterance whose text comes from an iterator; see [SynthesisSession.SaySeq2].
func (s *SynthesisSession) SaySeq(ctx context.Context, text iter.Seq[string], options ...UtteranceOption) (*Utterance, error) {
	return s.SayFunc(ctx, func(context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for piece := range text {
				if !yield(piece, nil) {
					return
				}
			}
		}
	}, options...)
}

// SayChan speaks one utterance whose text comes from a channel, until that is closed. Whoever sends on it has to mind that
// nobody receives any more once the utterance is over.
func (s *SynthesisSession) SayChan(ctx context.Context, text <-chan string, options ...UtteranceOption) (*Utterance, error) {
	return s.SayFunc(ctx, func(ctx context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			for {
				select {
				case piece, ok := <-text:
					if !ok || !yield(piece, nil) {
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}
	}, options...)
}

// SendText sends a piece of text: of the named utterance, else of the open one, else of a new one. A new id ends the
// utterance before it. Pieces are joined as they are, without a blank between them. What is no UTF-8 is sent as U+FFFD.
func (s *SynthesisSession) SendText(ctx context.Context, text string, options ...UtteranceOption) (*Utterance, error) {
	defer runtime.KeepAlive(s)
	o := utteranceOptionsOf(options)
	u, err := s.in.sendText(ctx, text, o.id, o.end, nil)
	if err != nil {
		return nil, err
	}
	return &Utterance{s, u}, nil
}

// Flush speaks now what is buffered of the utterance (default: the open one), and keeps it open.
func (s *SynthesisSession) Flush(ctx context.Context, options ...UtteranceOption) error {
	defer runtime.KeepAlive(s)
	flush := &speechv1.Flush{UtteranceId: utteranceOptionsOf(options).id}
	_, err := s.in.send(ctx, flush, func() error {
		if flush.UtteranceId == "" {
			flush.UtteranceId = s.in.openID
		}
		return nil
	})
	return err
}

// EndUtterance says that no more text follows for the utterance (default: the open one).
func (s *SynthesisSession) EndUtterance(ctx context.Context, options ...UtteranceOption) error {
	defer runtime.KeepAlive(s)
	return s.in.endUtterance(ctx, utteranceOptionsOf(options).id, nil)
}

// Cancel is barge-in: it stops the utterance, or without an id every one that is not complete, and keeps the session.
//
// From the call on no audio of it is delivered: what is buffered here is dropped, and what arrives late too. The iterator
// of its text is stopped. Returns when the request is sent; [UtteranceCancelled], or [Utterance.Wait], tells what was
// spoken.
func (s *SynthesisSession) Cancel(ctx context.Context, options ...UtteranceOption) error {
	defer runtime.KeepAlive(s)
	o := utteranceOptionsOf(options)
	return s.in.cancel(ctx, o.id, o.playback)
}

// ReportPlayback tells how much of an utterance has been played, for metrics and for exact cancels.
func (s *SynthesisSession) ReportPlayback(ctx context.Context, utteranceID string, played time.Duration) error {
	defer runtime.KeepAlive(s)
	_, err := s.in.send(ctx, &speechv1.PlaybackReport{UtteranceId: utteranceID, PlaybackOffset: durationpb.New(played)}, nil)
	return err
}

// Utterance gives the handle of an utterance by its id; nil where the session does not know it, or not any more.
func (s *SynthesisSession) Utterance(id string) *Utterance {
	defer runtime.KeepAlive(s)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if u := s.in.utterances[id]; u != nil {
		return &Utterance{s, u}
	}
	return nil
}

// --- the utterance as callers see it -------------------------------------------------------------

// ID is the utterance's id.
func (u *Utterance) ID() string { return u.of.id }

// Cancelled says whether this side has cancelled it. The gateway's word on it is what Wait gives.
func (u *Utterance) Cancelled() bool {
	defer runtime.KeepAlive(u.session)
	u.session.in.mu.Lock()
	defer u.session.in.mu.Unlock()
	return u.of.cancelled
}

// Audio is the audio as it comes, to the end of the utterance; it ends at once when the utterance is cancelled. Events of
// other kinds, and audio of utterances before this one, are passed over: one consumer at a time. The failure of the
// utterance, of the session or of the iterator of its text comes last, as an error.
func (u *Utterance) Audio(ctx context.Context) iter.Seq2[[]byte, error] {
	return sequence(func() ([]byte, error) { return u.next(ctx) })
}

// next gives the next piece of its audio; io.EOF at the end.
func (u *Utterance) next(ctx context.Context) ([]byte, error) {
	defer runtime.KeepAlive(u.session)
	s, of := u.session.in, u.of
	s.mu.Lock()
	defer s.mu.Unlock()
	for !of.consumed {
		event, err := s.take(ctx, func() bool { return of.cancelled })
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if failed := s.failureOf(of); failed != nil {
				return nil, failed
			}
			return nil, err
		}
		if chunk, ok := event.(*AudioChunk); ok && chunk.GetUtteranceId() == of.id {
			return chunk.GetAudio(), nil
		}
	}
	if failed := s.failureOf(of); failed != nil {
		return nil, failed
	}
	return nil, io.EOF
}

// ReadAll gives all of its audio in one piece. It fails as Audio does.
func (u *Utterance) ReadAll(ctx context.Context) ([]byte, error) {
	var all bytes.Buffer
	for audio, err := range u.Audio(ctx) {
		if err != nil {
			return all.Bytes(), err
		}
		all.Write(audio)
	}
	return all.Bytes(), nil
}

// Reader gives its audio as it comes, for whoever reads bytes. It fails as Audio does.
func (u *Utterance) Reader(ctx context.Context) io.Reader {
	return &audioReader{next: func() ([]byte, error) { return u.next(ctx) }}
}

type audioReader struct {
	next func() ([]byte, error)
	rest []byte
	err  error
}

// Read implements io.Reader.
func (r *audioReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.rest, r.err = r.next()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: each chunk is written as it came.
func (r *audioReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(r.rest) > 0 {
			n, err := w.Write(r.rest)
			total += int64(n)
			r.rest = r.rest[n:]
			if err != nil {
				return total, err
			}
		}
		if r.err == nil {
			r.rest, r.err = r.next()
		}
		if r.err != nil && len(r.rest) == 0 {
			if errors.Is(r.err, io.EOF) {
				return total, nil
			}
			return total, r.err
		}
	}
}

// Outcome is how an utterance that did not fail has ended; exactly one of the two is set.
type Outcome struct {
	// Completed is set where it was spoken to its end.
	Completed *UtteranceCompleted
	// Cancelled is set where it was cancelled; it tells what was heard.
	Cancelled *UtteranceCancelled
}

// Wait waits for the end of the utterance; its audio waits meanwhile for whoever reads it. The failure of the utterance,
// of the session or of the iterator of its text is the error.
func (u *Utterance) Wait(ctx context.Context) (Outcome, error) {
	defer runtime.KeepAlive(u.session)
	s, of := u.session.in, u.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.until(ctx, func() bool { return of.outcome != nil }); err != nil {
		if failed := s.failureOf(of); failed != nil {
			return Outcome{}, failed
		}
		return Outcome{}, err
	}
	if failed := s.failureOf(of); failed != nil {
		return Outcome{}, failed
	}
	completed, _ := of.outcome.(*UtteranceCompleted)
	cancelled, _ := of.outcome.(*UtteranceCancelled)
	return Outcome{completed, cancelled}, nil
}

// Cancel is barge-in, of this utterance alone; see [SynthesisSession.Cancel].
func (u *Utterance) Cancel(ctx context.Context, options ...UtteranceOption) error {
	return u.session.Cancel(ctx, append(options[:len(options):len(options)], WithUtteranceID(u.of.id))...)
}

// sequence gives what next gives, to its end or its error.
func sequence[T any](next func() (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			item, err := next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// --- text, inside --------------------------------------------------------------------------------

// utteranceOf gives the utterance of that id, or a new one.
func (s *synthesis) utteranceOf(id string) *utterance {
	if id == "" {
		s.count++
		id = s.prefix + "-" + strconv.Itoa(s.count)
	}
	u := s.utterances[id]
	if u == nil {
		s.forgetOldUtterances()
		u = &utterance{id: id}
		s.utterances[id] = u
		s.order = append(s.order, id)
	}
	return u
}

func (s *synthesis) forgetOldUtterances() {
	if len(s.order) <= rememberedUtterances {
		return
	}
	kept := s.order[:0]
	excess := len(s.order) - rememberedUtterances
	for _, id := range s.order {
		if excess > 0 && s.utterances[id].outcome != nil {
			delete(s.utterances, id)
			excess--
		} else {
			kept = append(kept, id)
		}
	}
	s.order = kept
}

var errOver = errors.New("the utterance is over")

// say sends the text of a new utterance, or has it sent where it comes later or has to wait.
func (s *synthesis) say(
	ctx context.Context, text string, pieces func(context.Context) iter.Seq2[string, error], options []UtteranceOption,
) (*utterance, error) {
	s.mu.Lock()
	if ctx.Err() != nil {
		s.mu.Unlock()
		return nil, contextError(ctx)
	}
	if err := s.checkOpen(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	u := s.utteranceOf(utteranceOptionsOf(options).id)
	if u.isOver() {
		s.mu.Unlock()
		return nil, argumentError("utterance %q is over; what is new needs an id of its own, or none", u.id)
	}
	if pieces == nil && len(s.texts) == 0 {
		s.mu.Unlock()
		if _, err := s.sendText(ctx, text, u.id, true, u.ifWanted); err != nil && !errors.Is(err, errOver) {
			return nil, err
		}
		return u, nil
	}
	// It outlives this call, but carries its values: the text is made for whoever says it.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	u.text = &task{sending, cancel}
	job := u.text
	s.texts = append(s.texts, job)
	s.bringing.run(func() { s.sendLater(u, job, text, pieces) })
	s.mu.Unlock()
	return u, nil
}

// ifWanted is asked with the lock held, just before a piece of its text is sent.
func (u *utterance) ifWanted() error {
	if u.isOver() {
		return errOver
	}
	return nil
}

func (s *synthesis) sendLater(u *utterance, job *task, text string, pieces func(context.Context) iter.Seq2[string, error]) {
	err := s.sendInTurn(u, job, text, pieces)
	s.mu.Lock()
	kept := s.texts[:0]
	for _, other := range s.texts {
		if other != job {
			kept = append(kept, other)
		}
	}
	s.texts = kept
	wanted := !u.isOver() && !s.finished
	job.cancel()
	if u.text == job {
		u.text = nil
	}
	failure := (*textError)(nil)
	if errors.As(err, &failure) && wanted {
		u.textError = failure.err
		s.unseen[u.id] = failure.err
	}
	s.notify()
	s.mu.Unlock()
	if failure != nil && wanted {
		// The session's own failure is for whoever waits for the session.
		_ = s.cancel(s.ctx, u.id, nil)
	}
}

// textError is what the caller's iterator gave instead of text.
type textError struct{ err error }

func (e *textError) Error() string { return e.err.Error() }

// sendInTurn waits until the texts before it are sent, and sends its own.
func (s *synthesis) sendInTurn(
	u *utterance, job *task, text string, pieces func(context.Context) iter.Seq2[string, error],
) error {
	s.mu.Lock()
	for s.texts[0] != job {
		if err := s.wait(job.ctx); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	if pieces == nil {
		_, err := s.sendText(job.ctx, text, u.id, true, u.ifWanted)
		return err
	}
	begun, err := s.sendPieces(u, job, pieces)
	if err != nil {
		return err
	}
	if begun {
		return s.endUtterance(job.ctx, u.id, u.ifWanted)
	}
	_, err = s.sendText(job.ctx, "", u.id, true, u.ifWanted) // no text at all ends like any other
	return err
}

// sendPieces sends what an iterator brings; says whether there was any text.
func (s *synthesis) sendPieces(u *utterance, job *task, pieces func(context.Context) iter.Seq2[string, error]) (
	begun bool, err error,
) {
	defer func() {
		if value := recover(); value != nil {
			err = &textError{&PanicError{value, debug.Stack()}}
		}
	}()
	cut := "" // the beginning of a character that the next piece goes on with
	send := func(piece string) error {
		if piece == "" {
			return nil
		}
		begun = true
		_, err := s.sendText(job.ctx, piece, u.id, false, u.ifWanted)
		return err
	}
	for piece, err := range pieces(job.ctx) {
		if job.ctx.Err() != nil {
			return begun, errOver
		}
		if err != nil {
			return begun, &textError{err}
		}
		piece = cut + piece
		whole := wholeCharacters(piece)
		cut = piece[whole:]
		if err := send(piece[:whole]); err != nil {
			return begun, err
		}
	}
	if job.ctx.Err() != nil {
		return begun, errOver
	}
	return begun, send(cut)
}

// wholeCharacters says how much of the text is there without a character that is cut off at its end.
func wholeCharacters(text string) int {
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		first := text[len(text)-back]
		if utf8.RuneStart(first) {
			if !utf8.FullRuneInString(text[len(text)-back:]) {
				return len(text) - back
			}
			break
		}
	}
	return len(text)
}

// sendText sends a piece of text, cut where it is too long for one message. check is asked before each.
func (s *synthesis) sendText(ctx context.Context, text, id string, end bool, check func() error) (*utterance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	if err := s.checkOpen(); err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if id == "" {
		id = s.openID
	}
	u := s.utteranceOf(id)
	if u.isOver() && (!u.placed || u.place != s.moves) {
		// The gateway's session of now has never heard that it is over, and would speak it.
		s.deliver(&Warning{
			Reason: "STALE_TEXT", Message: "text for an utterance that is over was dropped", UtteranceId: u.id,
		}, 0)
		s.notify()
		return u, nil
	}
	if !u.placed {
		u.placed, u.place = true, s.moves
	}
	s.openID = u.id
	if end {
		s.openID = ""
	}
	pieces := splitText(strings.ToValidUTF8(text, "\uFFFD"), int(s.started.GetLimits().GetMaxTextMessageChars()))
	for at, piece := range pieces {
		input := &speechv1.TextInput{Text: piece, UtteranceId: u.id, EndUtterance: end && at == len(pieces)-1}
		if _, err := s.sendLocked(ctx, input, check); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// splitText cuts text in pieces of at most limit characters (0: no limit), behind a blank where there is one.
func splitText(text string, limit int) []string {
	var pieces []string
	for limit > 0 && utf8.RuneCountInString(text) > limit {
		end := 0
		for range limit {
			_, width := utf8.DecodeRuneInString(text[end:])
			end += width
		}
		if blank := strings.LastIndexByte(text[:end], ' '); blank > 0 {
			end = blank + 1
		}
		pieces = append(pieces, text[:end])
		text = text[end:]
	}
	return append(pieces, text)
}

func (s *synthesis) endUtterance(ctx context.Context, id string, check func() error) error {
	input := &speechv1.EndUtterance{UtteranceId: id}
	_, err := s.send(ctx, input, func() error {
		if check != nil {
			if err := check(); err != nil {
				return err
			}
		}
		if input.UtteranceId == "" {
			input.UtteranceId = s.openID
		}
		if input.UtteranceId == s.openID {
			s.openID = ""
		}
		return nil
	})
	if errors.Is(err, errOver) {
		return nil
	}
	return err
}

// endInput waits for the texts that are under way, and ends the input.
func (s *synthesis) endInput(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.texts) > 0 && !s.finished { // no reason to read ahead, unlike what until waits for
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	_, err := s.sendLocked(ctx, &speechv1.EndSession{}, nil)
	return err
}

// awaitInput waits until the iterators have ended, but not for one that blocks.
func (s *synthesis) awaitInput() {
	waitFor(s.bringing.done(), goodbyeTime)
}

// stopInput calls off the iterators. The lock is held.
func (s *synthesis) stopInput() {
	for _, job := range s.texts {
		job.cancel()
	}
}

func (s *synthesis) unseenError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.order {
		if err := s.unseen[id]; err != nil {
			return err
		}
	}
	return nil
}

// failureOf gives what an utterance failed with.
func (s *synthesis) failureOf(u *utterance) error {
	if u.textError != nil {
		delete(s.unseen, u.id)
		return u.textError
	}
	if failed, ok := u.outcome.(*UtteranceFailed); ok {
		return failureOf(failed)
	}
	return nil
}

func failureOf(failed *UtteranceFailed) error {
	if err := StatusError(failed.GetError()); err != nil {
		return err
	}
	return &Error{Kind: KindOther, Code: codes.Unknown, Message: "the utterance failed without a reason"}
}

// --- barge-in, inside ----------------------------------------------------------------------------

func (s *synthesis) cancel(ctx context.Context, id string, playback *time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkOpen(); err != nil {
		return err
	}
	anyMeant, anyPlaced := false, false
	for _, candidate := range s.order {
		u := s.utterances[candidate]
		if u.outcome != nil || (id != "" && id != u.id) {
			continue
		}
		anyMeant = true
		u.cancelled = true
		if u.text != nil {
			u.text.cancel()
		}
		if u.placed {
			anyPlaced = true
			continue
		}
		// The gateway has never heard of it.
		never := &UtteranceCancelled{UtteranceId: u.id, Method: speechv1.UtteranceCancelled_METHOD_NOT_SENT}
		if seen := s.note(never); seen != nil {
			s.deliver(seen, 0)
		}
	}
	s.notify()
	if id != "" && anyMeant && !anyPlaced {
		return nil
	}
	if id == "" || id == s.openID {
		s.openID = ""
	}
	s.drop(func(event Event) bool {
		switch event := event.(type) {
		case *AudioChunk:
			return id == "" || id == event.GetUtteranceId()
		case *WordTimings:
			return id == "" || id == event.GetUtteranceId()
		}
		return false
	})
	input := &speechv1.CancelUtterance{UtteranceId: id}
	if playback != nil {
		input.PlaybackOffset = durationpb.New(*playback)
	}
	_, err := s.sendLocked(ctx, input, nil)
	return err
}

// --- events, inside ------------------------------------------------------------------------------

// take gives the next event, or io.EOF where enough says so. The lock is held.
func (s *synthesis) take(ctx context.Context, enough func() bool) (Event, error) {
	event, err := s.next(ctx, enough)
	if id, ended := outcomeOf(event); ended {
		if u := s.utterances[id]; u != nil {
			u.consumed = true
		}
	}
	return event, err
}

// outcomeOf says whether an event ends an utterance, and which.
func outcomeOf(event Event) (id string, ended bool) {
	switch event := event.(type) {
	case *UtteranceCompleted:
		return event.GetUtteranceId(), true
	case *UtteranceCancelled:
		return event.GetUtteranceId(), true
	case *UtteranceFailed:
		return event.GetUtteranceId(), true
	}
	return "", false
}

func (s *synthesis) note(event Event) Event {
	if id, ended := outcomeOf(event); ended {
		u := s.utterances[id]
		if u == nil {
			return event
		}
		failed, isFailed := event.(*UtteranceFailed)
		if isFailed && !u.heard && !u.cancelled && StatusError(failed.GetError()).isDraining() && s.mayMove() {
			return nil // it is spoken elsewhere
		}
		s.settle(keyOf(id))
		u.outcome = event
		if u.text != nil {
			u.text.cancel() // a failed utterance takes no more text
		}
		return event
	}
	switch event := event.(type) {
	case *AudioChunk:
		u := s.utterances[event.GetUtteranceId()]
		if u == nil {
			return event
		}
		u.heard = true
		u.heardTime = event.GetStartOffset().AsDuration() + s.playingTime(event.GetAudio())
		if u.cancelled {
			return nil
		}
	case *WordTimings:
		u := s.utterances[event.GetUtteranceId()]
		if u == nil {
			return event
		}
		u.heard = true
		if u.cancelled {
			return nil
		}
	case *UtteranceStarted:
		if u := s.utterances[event.GetUtteranceId()]; u != nil {
			again := u.started
			u.started = true
			if again {
				return nil
			}
		}
	}
	return event
}

func (s *synthesis) size(event Event) int {
	if chunk, ok := event.(*AudioChunk); ok {
		return len(chunk.GetAudio())
	}
	return 0
}

func (s *synthesis) request(sequence int64, input proto.Message) proto.Message {
	r := &speechv1.SynthesizeStreamRequest{InputSequence: sequence}
	switch input := input.(type) {
	case *speechv1.StartSynthesis:
		r.Input = &speechv1.SynthesizeStreamRequest_Start{Start: input}
	case *speechv1.TextInput:
		r.Input = &speechv1.SynthesizeStreamRequest_Text{Text: input}
	case *speechv1.EndUtterance:
		r.Input = &speechv1.SynthesizeStreamRequest_EndUtterance{EndUtterance: input}
	case *speechv1.CancelUtterance:
		r.Input = &speechv1.SynthesizeStreamRequest_Cancel{Cancel: input}
	case *speechv1.UpdateSynthesisSettings:
		r.Input = &speechv1.SynthesizeStreamRequest_UpdateSettings{UpdateSettings: input}
	case *speechv1.PlaybackReport:
		r.Input = &speechv1.SynthesizeStreamRequest_Playback{Playback: input}
	case *speechv1.EndSession:
		r.Input = &speechv1.SynthesizeStreamRequest_EndSession{EndSession: input}
	case *speechv1.Flush:
		r.Input = &speechv1.SynthesizeStreamRequest_Flush{Flush: input}
	}
	return r
}

func (s *synthesis) resumption(sessionID string, lastReceived int64) proto.Message {
	return &speechv1.StartSynthesis{ResumeSessionId: sessionID, LastReceivedSequence: lastReceived}
}

// --- moving, inside ------------------------------------------------------------------------------

func keyOf(utteranceID string) inputKey { return inputKey{"utterance", utteranceID} }

func (s *synthesis) keep(input proto.Message) {
	named, ok := input.(interface{ GetUtteranceId() string })
	if !ok {
		return
	}
	u := s.utterances[named.GetUtteranceId()]
	if u == nil || u.outcome != nil {
		return
	}
	key := keyOf(u.id)
	switch input.(type) {
	case *speechv1.TextInput:
	case *speechv1.Flush, *speechv1.EndUtterance:
		begun := false
		for _, item := range s.unfinished {
			begun = begun || item.key == key
		}
		if !begun {
			return
		}
	default:
		return
	}
	s.unfinished = append(s.unfinished, unfinished{key: key, input: input})
}

// pending is what was sent and has not ended, in order.
func (s *synthesis) pending() []*utterance {
	var sent []*utterance
	known := map[string]bool{}
	for _, item := range s.unfinished {
		if text, ok := item.input.(*speechv1.TextInput); ok && !known[text.GetUtteranceId()] {
			known[text.GetUtteranceId()] = true
			sent = append(sent, s.utterances[text.GetUtteranceId()])
		}
	}
	return sent
}

func (s *synthesis) isIdle() bool {
	for _, u := range s.pending() {
		if u.heard || u.cancelled {
			return false
		}
	}
	return true
}

func (s *synthesis) canMove() bool { return true }

func (s *synthesis) startElsewhere() proto.Message {
	start := proto.CloneOf(s.start.(*speechv1.StartSynthesis))
	if s.settings != nil {
		start.Settings = proto.CloneOf(s.settings.GetSynthesis())
	}
	return start
}

func (s *synthesis) carryOver() time.Duration {
	for _, u := range s.pending() {
		u.placed, u.place = true, s.moves+1
		if !u.heard && !u.cancelled {
			continue
		}
		// Its gateway is gone: it would have ended there.
		failure := s.lastFailure
		if failure == nil {
			failure = &Error{Code: codes.Unavailable, Message: "the gateway has gone"}
		}
		failed := &UtteranceFailed{
			UtteranceId: u.id, Error: failure.status(), Retryable: true, AudioSentDuration: durationpb.New(u.heardTime),
		}
		if seen := s.note(failed); seen != nil {
			s.deliver(seen, 0)
		}
	}
	return 0
}

func (s *synthesis) whatIsLost() string {
	var lost []string
	for _, u := range s.pending() {
		if u.heard {
			lost = append(lost, "the rest of utterance "+u.id)
		} else {
			lost = append(lost, "utterance "+u.id)
		}
	}
	return strings.Join(lost, ", ")
}

func (s *synthesis) playingTime(audio []byte) time.Duration {
	rate := bytesPerSecond(s.started.GetAudioFormat())
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(len(audio)) / float64(rate) * float64(time.Second))
}
