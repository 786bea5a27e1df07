package wavegate

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strconv"
	"strings"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// --- changes of settings -------------------------------------------------------------------------

type updateOptions struct {
	id                 string
	reset              []string
	apply              ApplyPolicy
	expectedRevision   *int64
	validateOnly       bool
	afterInputSequence *int64
	watch              bool
}

// UpdateOption says more about a change of settings.
type UpdateOption func(*updateOptions)

// WithUpdateID gives the change an id of the caller's own. One that was already used in the session is not applied again.
func WithUpdateID(id string) UpdateOption {
	return func(o *updateOptions) { o.id = id }
}

// WithReset names the settings to put back to their defaults, as the contract spells them: `speed`, `voice_id`.
func WithReset(names ...string) UpdateOption {
	return func(o *updateOptions) { o.reset = append(o.reset, names...) }
}

// WithApply says when to apply the change, and at what cost; [ApplyAtNextBoundary] without it.
func WithApply(policy ApplyPolicy) UpdateOption {
	return func(o *updateOptions) { o.apply = policy }
}

// WithExpectedRevision has the change refused (KindConflict) unless the settings are at this revision.
func WithExpectedRevision(revision int64) UpdateOption {
	return func(o *updateOptions) { o.expectedRevision = &revision }
}

// WithValidateOnly changes nothing; the ack says what would happen.
func WithValidateOnly() UpdateOption {
	return func(o *updateOptions) { o.validateOnly = true }
}

// WithAfterInputSequence applies the change right behind the input of that number, which still has the old settings. For a
// [SettingsStream].
func WithAfterInputSequence(sequence int64) UpdateOption {
	return func(o *updateOptions) { o.afterInputSequence = &sequence }
}

// WithWatch reports whatever else changes on that session from now on. For a [SettingsStream].
func WithWatch() UpdateOption {
	return func(o *updateOptions) { o.watch = true }
}

// newUpdate reads the options of a change of the settings in a message; an error for a setting that does not exist.
func newUpdate(options []UpdateOption, settings proto.Message) (updateOptions, *fieldmaskpb.FieldMask, error) {
	chosen := updateOptions{apply: ApplyAtNextBoundary}
	for _, option := range options {
		option(&chosen)
	}
	if len(chosen.reset) == 0 {
		return chosen, nil, nil
	}
	fields := settings.ProtoReflect().Descriptor().Fields()
	var known []string
	for i := range fields.Len() {
		known = append(known, string(fields.Get(i).Name()))
	}
	for _, name := range chosen.reset {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return chosen, nil, argumentError("there is no setting %q: there are %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, &fieldmaskpb.FieldMask{Paths: chosen.reset}, nil
}

// --- settings of sessions that run elsewhere -----------------------------------------------------

// SessionChange is something that happened to a session: an ack, or with [WithWatch] anything that it reports.
type SessionChange struct {
	// SessionID is the session.
	SessionID string
	// Event is a *SettingsAck, a *ConnectionEvent or a *SessionEnded.
	Event Event
}

// SettingsStream is one stream that changes the settings of any of the caller's sessions; [Client.SettingsStream] opens it.
// Ending it leaves the sessions as they are. Unlike a session it is not resumed: its calls fail where the connection is
// lost.
type SettingsStream struct {
	client *Client // whose connection it uses
	in     *control
}

// control is the part of a settings stream that lives until it is over.
type control struct {
	core
	acks map[string]*SettingsAck // of updates under way; nil until there is one
	// Ids must not meet those of the session's own updates, nor of other callers' streams.
	prefix   string
	count    int
	stopOnce stopper
}

var controlProtocol = protocol{
	open: func(ctx context.Context, c *channel) (grpc.ClientStream, error) {
		return c.sessions().UpdateSettings(ctx)
	},
	newMessage: func() proto.Message { return new(speechv1.UpdateSettingsResponse) },
	convert: func(message proto.Message) response {
		m := message.(*speechv1.UpdateSettingsResponse)
		r := response{sessionID: m.GetSessionId()}
		switch event := m.GetEvent().(type) {
		case *speechv1.UpdateSettingsResponse_Ack:
			r.event = event.Ack
		case *speechv1.UpdateSettingsResponse_Connection:
			r.event = event.Connection
		case *speechv1.UpdateSettingsResponse_SessionEnded:
			r.event = event.SessionEnded
		}
		return r
	},
}

// SettingsStream opens a stream that changes the settings of live sessions. ctx is the stream's: when it is done, the
// stream ends. That there is no gateway shows with the first update.
func (c *Client) SettingsStream(ctx context.Context) (*SettingsStream, error) {
	defer runtime.KeepAlive(c)
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	in := &control{acks: map[string]*SettingsAck{}, prefix: newPrefix()}
	in.channels = &c.in.channels
	in.stopOnce.done = make(chan struct{})
	release, ok := c.in.add(in)
	if !ok {
		return nil, clientClosed()
	}
	channel := in.channels.acquire()
	defer in.channels.release(channel) // the line counts by itself
	in.mu.Lock()
	in.line = newLine(context.WithoutCancel(ctx), &in.core, in, channel, controlProtocol, "")
	unlink := context.AfterFunc(ctx, func() { in.stop(contextError(ctx)) })
	in.onFinished = func() { unlink(); release() }
	in.mu.Unlock()
	stream := &SettingsStream{c, in}
	runtime.AddCleanup(stream, func(in *control) { go in.stop(nil) }, in)
	return stream, nil
}

// UpdateSynthesis changes a synthesis session; returns once the change is applied, superseded or validated. Nil settings go
// with [WithReset] alone. What the gateway refuses is an error, such as KindSessionNotFound; the stream goes on. Giving
// up the wait does not take the change back.
func (s *SettingsStream) UpdateSynthesis(
	ctx context.Context, sessionID string, settings *SynthesisSettings, options ...UpdateOption,
) (*SettingsAck, error) {
	defer runtime.KeepAlive(s)
	u, mask, err := newUpdate(options, &SynthesisSettings{})
	if err != nil {
		return nil, err
	}
	request := u.request(sessionID, mask)
	if settings != nil {
		request.Settings = &speechv1.UpdateSettingsRequest_Synthesis{Synthesis: proto.CloneOf(settings)}
	}
	return s.in.update(ctx, request)
}

// UpdateTranscription changes a transcription session; see [SettingsStream.UpdateSynthesis].
func (s *SettingsStream) UpdateTranscription(
	ctx context.Context, sessionID string, settings *TranscriptionSettings, options ...UpdateOption,
) (*SettingsAck, error) {
	defer runtime.KeepAlive(s)
	u, mask, err := newUpdate(options, &TranscriptionSettings{})
	if err != nil {
		return nil, err
	}
	request := u.request(sessionID, mask)
	if settings != nil {
		request.Settings = &speechv1.UpdateSettingsRequest_Transcription{Transcription: proto.CloneOf(settings)}
	}
	return s.in.update(ctx, request)
}

func (o *updateOptions) request(sessionID string, mask *fieldmaskpb.FieldMask) *speechv1.UpdateSettingsRequest {
	return &speechv1.UpdateSettingsRequest{
		UpdateId: o.id, SessionId: sessionID, ResetMask: mask, ApplyPolicy: o.apply,
		AfterInputSequence: o.afterInputSequence, ExpectedRevision: o.expectedRevision,
		ValidateOnly: o.validateOnly, Watch: o.watch,
	}
}

// Changes are all reports in order, to the end of the stream. Leaving the loop keeps the rest for the next.
func (s *SettingsStream) Changes(ctx context.Context) iter.Seq2[*SessionChange, error] {
	return sequence(func() (*SessionChange, error) {
		defer runtime.KeepAlive(s)
		s.in.mu.Lock()
		defer s.in.mu.Unlock()
		event, err := s.in.next(ctx, func() bool { return false })
		change, _ := event.(*SessionChange)
		return change, err
	})
}

// Finish ends the stream once the acks of all changes have come, or after 2 s where a watched session outlives the
// interest in it. Gives the failure of the stream if nothing has given it before.
func (s *SettingsStream) Finish(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	in := s.in
	in.mu.Lock()
	var err error
	if !in.finished {
		in.inputEnded = true
		in.line.end()
		patient, cancel := context.WithTimeout(ctx, goodbyeTime)
		err = in.drain(patient)
		if patient.Err() != nil && ctx.Err() == nil {
			err = nil
		}
		cancel()
	} else if in.failure != nil && !in.failureSeen {
		err = in.closedError()
	}
	in.mu.Unlock()
	in.stop(nil)
	return err
}

// Close ends the stream at once, without waiting for acks.
func (s *SettingsStream) Close() error {
	defer runtime.KeepAlive(s)
	s.in.stop(nil)
	return nil
}

func (s *control) update(ctx context.Context, request *speechv1.UpdateSettingsRequest) (*SettingsAck, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	if err := s.checkOpen(); err != nil {
		return nil, err
	}
	if request.UpdateId == "" {
		s.count++
		request.UpdateId = s.prefix + "-" + strconv.Itoa(s.count)
	}
	updateID := request.GetUpdateId()
	if _, busy := s.acks[updateID]; busy {
		return nil, argumentError("update %q of this stream is still under way", updateID)
	}
	s.acks[updateID] = nil
	defer delete(s.acks, updateID)
	s.line.put(request)
	if err := s.until(ctx, func() bool { return s.acks[updateID] != nil }); err != nil {
		return nil, err
	}
	return checkAck(s.acks[updateID])
}

func (s *control) onResponse(_ *line, response response) bool {
	if response.event == nil {
		return false
	}
	if ack, ok := response.event.(*SettingsAck); ok && ack.GetState() != speechv1.SettingsAck_STATE_QUEUED {
		if _, awaited := s.acks[ack.GetUpdateId()]; awaited {
			s.acks[ack.GetUpdateId()] = ack
		}
	}
	s.deliver(&SessionChange{response.sessionID, response.event}, 0)
	s.notify()
	return false
}

func (s *control) onOver(line *line, failure *Error) {
	if failure == nil && !line.cancelled && !s.inputEnded {
		failure = &Error{
			Kind: KindConnectionLost, Code: codes.Unavailable,
			Message: fmt.Sprintf("the gateway at %s ended the settings stream; open another one", line.channel.target),
		}
	}
	s.finish(failure)
}

// stop ends the call and its goroutines.
func (s *control) stop(failure *Error) {
	s.mu.Lock()
	if s.stopOnce.begun {
		s.mu.Unlock()
		<-s.stopOnce.done
		return
	}
	s.stopOnce.begun = true
	s.finish(failure)
	line := s.line
	s.mu.Unlock()
	line.stop()
	<-s.goroutines.done()
	close(s.stopOnce.done)
}
