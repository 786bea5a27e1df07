package wavegate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// What a synthesis and a transcription session have in common: numbers, settings, beginning and end, and survival.
//
// A session that lost its call is resumed: the same session of the same gateway, over another call. Input is numbered
// and kept until it is acknowledged, and what came is numbered too, so nothing is lost and nothing comes twice.
//
// A session whose gateway shuts down is moved: another session, of another gateway, goes on where the first one stood.
// What its gateway has not brought to an end is said again there, so it is kept until then; the kinds of session say
// what that is, and at what point one session may follow the other.

const (
	// DefaultResumeWindow is how long a session outlives the loss of its call, unless the caller says otherwise or the
	// gateway grants less.
	DefaultResumeWindow = 30 * time.Second
	// DefaultOpenTimeout is how long the opening of a session may take, unless the caller says otherwise.
	DefaultOpenTimeout = 30 * time.Second

	// keptBytes is how much input is taken while there is no call: half a minute of 16-bit samples at 16000 Hz. Then
	// senders wait.
	keptBytes = 1 << 20
	// movePatience is how long a session that was told to go away looks for another gateway, beyond the time that it
	// was given,
	movePatience = 30 * time.Second
	// openElsewhereTime is how long one try for that may take.
	openElsewhereTime = 5 * time.Second
	// movingResumeTime is how long a lost call is tried again where another session is about to take over anyway.
	movingResumeTime = 2 * time.Second
	// resumeTryTime is how long one try to resume may take.
	resumeTryTime = 5 * time.Second
	// closeTime is for ending a session from outside, where its own call does not let us.
	closeTime = time.Second
)

// kind is what a kind of session says. Its methods are called with the lock held.
type kind interface {
	// request makes the numbered request of an input.
	request(sequence int64, input proto.Message) proto.Message
	// resumption makes the start that takes a session up.
	resumption(sessionID string, lastReceived int64) proto.Message
	// note takes note of an event; gives what the caller shall see of it, or nil.
	note(event Event) Event
	// size is how much of the buffer an event takes.
	size(event Event) int
	// keep puts an input among the unfinished, if another session would need it.
	keep(input proto.Message)
	// isIdle says whether another session can go on from here.
	isIdle() bool
	// canMove says whether it can at all.
	canMove() bool
	// startElsewhere makes the start of a session that goes on where this one stands.
	startElsewhere() proto.Message
	// carryOver prepares the unfinished input for another session; the playing time of the audio that is lost.
	carryOver() time.Duration
	// whatIsLost says what a session that cannot go on loses.
	whatIsLost() string
	// stopInput stops what still makes input.
	stopInput()
	// awaitInput waits until that has ended, within limits. The lock is not held.
	awaitInput()
}

// inputLog numbers a session's input, and keeps what the gateway has not acknowledged yet. Only a session that may be
// resumed needs the latter, and the gateway says in its first answer whether it may.
type inputLog struct {
	last      int64
	keptBytes int
	kept      []keptInput
	forgets   bool
}

type keptInput struct {
	sequence int64
	request  proto.Message
	size     int
}

func (l *inputLog) add(k kind, input proto.Message) proto.Message {
	l.last++
	request := k.request(l.last, input)
	if !l.forgets {
		size := proto.Size(request)
		l.keptBytes += size
		l.kept = append(l.kept, keptInput{l.last, request, size})
	}
	return request
}

// acknowledge says that the gateway has kept everything up to sequence.
func (l *inputLog) acknowledge(sequence int64) {
	for len(l.kept) > 0 && l.kept[0].sequence <= sequence {
		l.keptBytes -= l.kept[0].size
		l.kept[0] = keptInput{}
		l.kept = l.kept[1:]
	}
}

// keepNothing says that the session cannot be resumed.
func (l *inputLog) keepNothing() {
	l.forgets, l.kept, l.keptBytes = true, nil, 0
}

// inputKey is what an unfinished input belongs to.
type inputKey struct{ kind, id string }

// unfinished is an input that another session would need, until it has come to its end.
type unfinished struct {
	key        inputKey
	input      proto.Message
	start, end int64 // where in the audio it lies
}

// drainingDelays say how long to wait before asking again where every gateway that answered shuts down.
var drainingDelays = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second}

// delays says how long to wait before each try.
type delays struct{ tries int }

var firstDelays = []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}

func (d *delays) next() time.Duration {
	delay := 2 * time.Second
	if d.tries < len(firstDelays) {
		delay = firstDelays[d.tries]
	}
	d.tries++
	return spread(delay)
}

// spread varies a delay, so that clients do not come all at once.
func spread(delay time.Duration) time.Duration {
	return time.Duration(float64(delay) * (0.8 + 0.4*rand.Float64()))
}

// sleep gives false where the context is done first.
func sleep(ctx context.Context, delay time.Duration) bool {
	if delay <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// opening is a call whose first answer is awaited.
type opening struct {
	done     chan struct{}
	response response
	failure  *Error
	retires  bool // the line is seen to
}

func (o *opening) isDone() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

func (o *opening) fail(failure *Error) {
	o.failure = failure
	close(o.done)
}

// task is work in the background that can be called off.
type task struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// successor is a session that is open elsewhere, and the start that it was opened with.
type successor struct {
	line     *line
	response response
	start    proto.Message
}

// sessionConfig is what a session is opened with.
type sessionConfig struct {
	audioFormat     *AudioFormat
	clientSessionID string
	labels          map[string]string
	resumeWindow    time.Duration
	openTimeout     time.Duration
	stays           bool
	maxAudioLead    *time.Duration
	keepAlive       *bool
	initialOffset   *time.Duration
}

// session is the part of a session that lives until it is over, also where the caller has dropped its handle.
type session struct {
	core
	kind     kind
	protocol protocol
	start    proto.Message
	ctx      context.Context // of its calls: it carries values, and is never done
	config   sessionConfig
	// resumeWindow was asked for; then, it is what was granted.
	resumeWindow time.Duration

	openings     map[*line]*opening
	log          inputLog
	unfinished   []unfinished
	lastReceived int64
	started      *SessionStarted
	settings     *EffectiveSettings
	revision     int64
	acks         map[string]*SettingsAck // of updates under way; nil until there is one
	updates      int
	ended        *SessionEnded
	goAway       *GoAway

	// Survival.
	resuming     *task
	outageSince  time.Time // since when nothing has come, over any number of calls, and when to try again
	outageDelays *delays
	moving       *task
	successor    *successor
	givenUp      bool // the session at the gateway is over before its work is done; its last words wait then:
	lastEnded    *SessionEnded
	lastFailure  *Error
	moves        int

	stopOnce stopper
	release  func() // tells the client that it is over
}

// stopper lets one caller stop something, and the others wait.
type stopper struct {
	begun bool
	done  chan struct{}
}

func (s *session) init(ctx context.Context, k kind, channels *channels, p protocol, start proto.Message, config sessionConfig) {
	s.kind, s.channels, s.protocol, s.start, s.config = k, channels, p, start, config
	s.ctx = context.WithoutCancel(ctx)
	s.resumeWindow = config.resumeWindow
	s.openings = map[*line]*opening{}
	s.acks = map[string]*SettingsAck{}
	s.stopOnce.done = make(chan struct{})
	s.onFinished = s.afterFinish
}

// --- beginning and end ---------------------------------------------------------------------------

// open opens the session; returns once the upstream has accepted it.
func (s *session) open(ctx context.Context) error {
	opened := ctx
	if s.config.openTimeout > 0 {
		var cancel context.CancelFunc
		opened, cancel = context.WithTimeout(ctx, s.config.openTimeout)
		defer cancel()
	}
	line, response, err := s.openSomewhere(opened, s.start)
	if err != nil {
		s.stop(nil)
		if opened.Err() != nil && ctx.Err() == nil {
			return &Error{
				Kind: KindDeadline, Code: codes.DeadlineExceeded, cause: err,
				Message: fmt.Sprintf("the gateway at %s did not open the session in %v", s.channels.current().target, s.config.openTimeout),
			}
		}
		return err
	}
	s.mu.Lock()
	if s.finished { // it was closed in this very moment
		s.spawn(func() { s.retire(line) })
		err := s.closedError()
		s.mu.Unlock()
		s.stop(nil)
		return err
	}
	s.log.add(s.kind, s.start)
	if seen := s.receive(response); seen != nil {
		s.deliver(seen, s.kind.size(seen))
	}
	s.attach(line)
	s.mu.Unlock()
	// From here on the context is that of the session.
	unlink := context.AfterFunc(ctx, func() { s.stop(contextError(ctx)) })
	s.mu.Lock()
	if s.finished {
		unlink()
	} else {
		release := s.release
		s.release = func() { unlink(); release() }
	}
	s.mu.Unlock()
	return nil
}

// stop ends what is not over yet, and all goroutines, within a few seconds; failure, if any, is why. It has no effect but
// to wait where it was called before.
func (s *session) stop(failure *Error) {
	s.mu.Lock()
	if s.stopOnce.begun {
		s.mu.Unlock()
		<-s.stopOnce.done
		<-s.goroutines.done()
		return
	}
	s.stopOnce.begun = true
	line, finished := s.line, s.finished
	s.finish(failure)
	s.cancelTasks()
	s.kind.stopInput()
	for line, opening := range s.openings {
		if !opening.isDone() { // whoever waits for it hears that it is over
			opening.retires = true
			opening.fail(sessionClosed("the client was closed"))
			s.spawn(func() { s.retire(line) })
		}
	}
	s.mu.Unlock()
	if line != nil {
		if finished {
			line.stop()
		} else {
			s.retire(line)
		}
	}
	s.kind.awaitInput()
	<-s.goroutines.done()
	close(s.stopOnce.done)
}

func (s *session) cancelTasks() {
	for _, task := range []*task{s.resuming, s.moving} {
		if task != nil {
			task.cancel()
		}
	}
}

// close ends the session at once; gives its failure if nobody has seen it.
func (s *session) close() error {
	s.stop(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil && !s.failureSeen {
		return s.closedError()
	}
	return nil
}

// end says that no input follows.
func (s *session) end(ctx context.Context, discard bool) error {
	_, err := s.send(ctx, &speechv1.EndSession{Discard: discard}, nil)
	return err
}

// complete drains the session, and stops it.
func (s *session) complete(ctx context.Context) error {
	s.mu.Lock()
	err := s.drain(ctx)
	s.mu.Unlock()
	s.stop(nil)
	return err
}

func (s *session) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finished || s.inputEnded
}

// afterFinish stops what goes on in the background. The lock is held.
func (s *session) afterFinish() {
	s.cancelTasks()
	if s.successor != nil {
		line := s.successor.line
		s.spawn(func() { s.retire(line) })
		s.successor = nil
	}
	// What `session_ended` says counts: the call's own status is lost where the gateway ends it while we write.
	if s.ended != nil {
		s.failure = StatusError(s.ended.GetStatus())
	}
	s.kind.stopInput()
	if s.release != nil {
		s.release()
	}
}

// --- responses -----------------------------------------------------------------------------------

func (s *session) onResponse(line *line, response response) bool {
	if opening := s.openings[line]; opening != nil {
		return s.onOpening(line, opening, response)
	}
	if line != s.line || response.sequence <= s.lastReceived {
		return false
	}
	if seen := s.receive(response); seen != nil {
		s.deliver(seen, s.kind.size(seen))
	}
	s.notify()
	if s.successor != nil && s.kind.isIdle() {
		s.moveOver()
	}
	return s.ended != nil || s.lastEnded != nil
}

// receive takes note of a response; gives what the caller shall see of it, or nil.
func (s *session) receive(response response) Event {
	s.lastReceived = response.sequence
	s.outageDelays = nil
	s.log.acknowledge(response.acknowledged)
	switch event := response.event.(type) {
	case nil:
		return nil
	case *SessionStarted:
		s.started = event
		s.settings, s.revision = event.GetSettings(), event.GetSettingsRevision()
		s.resumeWindow = event.GetLimits().GetResumeWindow().AsDuration()
		if s.resumeWindow == 0 {
			s.log.keepNothing()
		}
	case *SettingsAck:
		if event.GetState() == speechv1.SettingsAck_STATE_APPLIED && event.GetSettings() != nil {
			s.settings, s.revision = event.GetSettings(), event.GetSettingsRevision()
		}
		if event.GetState() != speechv1.SettingsAck_STATE_QUEUED {
			s.settle(inputKey{"update", event.GetUpdateId()})
			if _, awaited := s.acks[event.GetUpdateId()]; awaited {
				s.acks[event.GetUpdateId()] = event
			}
		}
	case *GoAway:
		s.goAway = event
		if !event.GetResumable() {
			s.beginMoving(event.GetTimeLeft().AsDuration())
		}
	case *SessionEnded:
		if event.GetReason() == speechv1.SessionEnded_REASON_DRAIN && s.mayMove() {
			// Its time is up. What it has not brought to an end goes on elsewhere.
			s.lastEnded, s.lastFailure = event, StatusError(event.GetStatus())
			s.beginMoving(0)
			return nil
		}
		s.ended = event
	}
	return s.kind.note(response.event)
}

// mayMove says whether another session may go on where this one stands.
func (s *session) mayMove() bool { return !s.config.stays && s.kind.canMove() }

func (s *session) startedNow() *SessionStarted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

func (s *session) endedNow() *SessionEnded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *session) goAwayNow() *GoAway {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.goAway
}

// --- input ---------------------------------------------------------------------------------------

// send sends one input; returns once it has gone or, while there is no call, is kept. prepare, if any, is asked with
// the lock held, just before it is numbered; where it gives an error nothing is sent.
func (s *session) send(ctx context.Context, input proto.Message, prepare func() error) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendLocked(ctx, input, prepare)
}

func (s *session) sendLocked(ctx context.Context, input proto.Message, prepare func() error) (int64, error) {
	if ctx.Err() != nil {
		return 0, contextError(ctx)
	}
	if err := s.checkOpen(); err != nil {
		return 0, err
	}
	if prepare != nil {
		if err := prepare(); err != nil {
			return 0, err
		}
	}
	request := s.log.add(s.kind, input)
	sequence := s.log.last
	switch input := input.(type) {
	case *speechv1.EndSession:
		s.inputEnded = true
		s.unfinished = append(s.unfinished, unfinished{key: inputKey{"end", ""}, input: input})
	case *speechv1.UpdateSynthesisSettings:
		s.unfinished = append(s.unfinished, unfinished{key: inputKey{"update", input.GetUpdateId()}, input: input})
	case *speechv1.UpdateTranscriptionSettings:
		s.unfinished = append(s.unfinished, unfinished{key: inputKey{"update", input.GetUpdateId()}, input: input})
	default:
		s.kind.keep(input)
	}
	line := s.line
	number := line.put(request)
	return sequence, s.until(ctx, func() bool {
		// What another call has to send again is in good hands as soon as there is one.
		return line.written >= number || line != s.line || (line.over && s.log.keptBytes < keptBytes && !s.log.forgets)
	})
}

// settle says that what belongs to key has come to its end.
func (s *session) settle(key inputKey) {
	kept := s.unfinished[:0]
	for _, item := range s.unfinished {
		if item.key != key {
			kept = append(kept, item)
		}
	}
	clear(s.unfinished[len(kept):])
	s.unfinished = kept
}

// update sends a change of settings and waits for what becomes of it.
func (s *session) update(ctx context.Context, updateID string, make func(updateID string) proto.Message) (*SettingsAck, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if updateID == "" {
		s.updates++
		updateID = "update-" + strconv.Itoa(s.updates)
	}
	if _, busy := s.acks[updateID]; busy {
		return nil, argumentError("update %q of this session is still under way", updateID)
	}
	s.acks[updateID] = nil
	defer delete(s.acks, updateID)
	if _, err := s.sendLocked(ctx, make(updateID), nil); err != nil {
		return nil, err
	}
	if err := s.until(ctx, func() bool { return s.acks[updateID] != nil }); err != nil {
		return nil, err
	}
	return checkAck(s.acks[updateID])
}

// checkAck gives the terminal ack of a change that was not refused, and what the gateway says of one that was.
func checkAck(ack *SettingsAck) (*SettingsAck, error) {
	switch ack.GetState() {
	case speechv1.SettingsAck_STATE_REJECTED:
		if refused := StatusError(ack.GetError()); refused != nil {
			return nil, refused
		}
		return nil, &Error{Kind: KindOther, Code: codes.Unknown, Message: "the settings were refused without a reason"}
	case speechv1.SettingsAck_STATE_SESSION_ENDED:
		return nil, sessionClosed("the session ended before the settings were applied")
	}
	return ack, nil
}

// --- opening -------------------------------------------------------------------------------------

// openSomewhere opens a session on the first target that takes it; gives what the last one says against it.
//
// Where that is a gateway that shuts down, all are asked again a few times: a balancer may need a second until it leads
// elsewhere.
func (s *session) openSomewhere(ctx context.Context, start proto.Message) (*line, response, error) {
	for _, delay := range drainingDelays {
		line, opened, err := s.openOnce(ctx, start)
		if err == nil || !isUnavailable(err) || !asError(err).isDraining() {
			return line, opened, err
		}
		if err := s.waitToOpen(ctx, spread(delay)); err != nil {
			return nil, response{}, err
		}
	}
	return s.openOnce(ctx, start)
}

// waitToOpen waits for so long; an error where the context is done first, or the session is over.
func (s *session) waitToOpen(ctx context.Context, delay time.Duration) error {
	delayed, cancel := context.WithTimeout(ctx, delay)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.finished && s.wait(delayed) == nil {
		continue
	}
	switch {
	case s.finished:
		return s.closedError()
	case ctx.Err() != nil:
		return contextError(ctx)
	}
	return nil
}

// openOnce opens a session on the first target that takes it; gives what the last one says against it.
func (s *session) openOnce(ctx context.Context, start proto.Message) (*line, response, error) {
	candidates := s.channels.candidates()
	held := candidates // nobody else's leaving closes the connection to one that is still to be asked
	defer func() { s.channels.release(held...) }()
	targets, freshOnes := len(candidates), 0
	for {
		channel := candidates[0]
		candidates = candidates[1:]
		line, opened, err := s.openAt(ctx, channel, start)
		if err == nil {
			s.channels.prefer(channel)
			return line, opened, nil
		}
		if !isUnavailable(err) {
			return nil, response{}, err
		}
		if asError(err).isDraining() {
			if fresh := s.channels.leave(channel); fresh != nil {
				held = append(held[:len(held):len(held)], fresh)
				// Behind the same address there may be another process; one look is enough.
				freshOnes++
				if freshOnes <= targets {
					candidates = append(candidates, fresh)
				}
			}
		}
		if len(candidates) == 0 {
			return nil, response{}, err
		}
	}
}

// openAt opens a session. One whose call is lost before the upstream has accepted it is resumed.
func (s *session) openAt(ctx context.Context, channel *channel, start proto.Message) (*line, response, error) {
	line, err := s.begin(channel, start, "")
	if err != nil {
		return nil, response{}, err
	}
	opened, err := s.opened(ctx, line, 0)
	if err == nil {
		return line, opened, nil
	}
	s.mu.Lock()
	sessionID, window := line.sessionID, s.resumeWindow
	s.mu.Unlock()
	if asError(err).Kind != KindConnectionLost || sessionID == "" || window == 0 {
		return nil, response{}, err
	}
	line, opened, _, err = s.takeUp(ctx, line, sessionID, 0, window, &delays{})
	return line, opened, err
}

// takeUp resumes the session of a lost call; gives also how many tries it took, and what made the last one fail.
func (s *session) takeUp(
	ctx context.Context, lost *line, sessionID string, lastReceived int64, window time.Duration, delays *delays,
) (*line, response, int, error) {
	start := s.kind.resumption(sessionID, lastReceived)
	channel := lost.channel
	s.mu.Lock()
	route := lost.route
	s.mu.Unlock()
	failure := error(&Error{
		Kind: KindGatewayUnavailable, Code: codes.Unavailable,
		Message: fmt.Sprintf("the gateway at %s does not answer", channel.target),
	})
	windowed, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	for attempt := 1; ; attempt++ {
		if !sleep(windowed, delays.next()) {
			break
		}
		line, err := s.begin(channel, start, route)
		if err != nil {
			return nil, response{}, attempt, err
		}
		opened, err := s.opened(windowed, line, resumeTryTime)
		switch {
		case err == nil:
			return line, opened, attempt, nil
		case windowed.Err() != nil:
		case isUnavailable(err), isReset(err):
			failure = err
			continue
		case asError(err).Kind == KindDeadline:
			continue
		case channel.config.roundRobin && asError(err).Kind == KindSessionNotFound && attempt < len(firstDelays):
			failure = err // another of the gateways behind the name may have it
			continue
		default:
			return nil, response{}, attempt, err
		}
		break
	}
	if ctx.Err() != nil {
		failure = contextError(ctx)
	}
	return nil, response{}, 0, failure
}

// begin makes a call that opens or resumes the session; an error where the session is over already.
func (s *session) begin(channel *channel, start proto.Message, route string) (*line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return nil, s.closedError()
	}
	line := newLine(s.ctx, &s.core, s, channel, s.protocol, route)
	s.openings[line] = &opening{done: make(chan struct{})}
	line.put(s.kind.request(1, start))
	return line, nil
}

// opened waits for the first answer; nothing more is read until the line is attached. Where none comes in time it gives
// KindDeadline, and leaves the session to another call; where the context is done it ends the session.
func (s *session) opened(ctx context.Context, line *line, patience time.Duration) (response, error) {
	s.mu.Lock()
	opening := s.openings[line]
	s.mu.Unlock()
	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	var isLate bool
	select {
	case <-opening.done:
	case <-late:
		isLate = true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.openings, line)
	switch {
	case opening.isDone() && opening.failure == nil && ctx.Err() == nil:
		return opening.response, nil
	case ctx.Err() != nil:
		s.spawn(func() { s.retire(line) })
		return response{}, contextError(ctx)
	}
	if !opening.retires {
		s.spawn(line.stop)
	}
	if isLate && !opening.isDone() {
		return response{}, &Error{
			Kind: KindDeadline, Code: codes.DeadlineExceeded,
			Message: fmt.Sprintf("the gateway at %s does not answer", line.channel.target),
		}
	}
	return response{}, opening.failure
}

func (s *session) onOpening(line *line, opening *opening, response response) bool {
	if opening.isDone() {
		return false
	}
	switch event := response.event.(type) {
	case *SessionEnded:
		failure := StatusError(event.GetStatus())
		if failure == nil {
			failure = sessionClosed("the session ended before it was open")
		}
		opening.fail(failure)
		return true
	case *SessionStarted:
		// Of a session that is resumed before it was open the first answer, number 0, says little.
		if response.sequence > 0 {
			line.sessionID = event.GetSessionId()
			line.hold(true)
			opening.response = response
			close(opening.done)
		}
	}
	return false
}

func (s *session) attach(line *line) {
	s.line = line
	s.updateFlow()
	s.notify()
	if line.over {
		s.onOver(line, line.failure)
	}
}

// --- surviving -----------------------------------------------------------------------------------

func (s *session) onOver(line *line, failure *Error) {
	if failure == nil && !line.cancelled {
		failure = &Error{
			Kind: KindConnectionLost, Code: codes.Unavailable,
			Message: fmt.Sprintf("the gateway at %s ended the call without a last word; open a new session", line.channel.target),
		}
	}
	if opening := s.openings[line]; opening != nil {
		if !opening.isDone() {
			if failure == nil {
				failure = sessionClosed("the client was closed")
			}
			opening.fail(failure)
		}
		return
	}
	switch {
	case line != s.line || s.finished:
	case s.ended != nil || line.cancelled:
		s.finish(failure)
	case s.lastEnded != nil:
		s.giveUp(s.lastEnded, s.lastFailure)
	case failure.Kind != KindConnectionLost:
		s.finish(failure)
	case !s.log.forgets && !(s.moving != nil && s.kind.isIdle()):
		ctx, cancel := context.WithCancel(s.ctx)
		resuming := &task{ctx, cancel}
		s.resuming = resuming
		s.channels.use(line.channel) // it is needed again, also where its gateway was left meanwhile
		s.spawn(func() {
			defer s.channels.release(line.channel)
			s.resume(resuming, line, failure)
		})
		s.notify() // whose input was not written yet need not wait: the next call sends it again
	default:
		s.giveUp(nil, s.toldWhatIsLost(failure, nil))
	}
}

func (s *session) resume(resuming *task, lost *line, failure *Error) {
	defer resuming.cancel()
	began := time.Now()
	s.mu.Lock()
	if s.outageDelays == nil {
		s.outageSince, s.outageDelays = began, &delays{}
	}
	window := s.resumeWindow
	if s.moving != nil {
		window = movingResumeTime
	}
	window -= began.Sub(s.outageSince)
	delays, sessionID, lastReceived := s.outageDelays, s.started.GetSessionId(), s.lastReceived
	s.mu.Unlock()
	line, response, attempts, err := s.takeUp(resuming.ctx, lost, sessionID, lastReceived, window, delays)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resuming != resuming || s.finished {
		if err == nil {
			s.spawn(func() { s.retire(line) })
		}
		return
	}
	s.resuming = nil
	if err != nil {
		s.giveUp(nil, s.toldWhatIsLost(failure, asError(err)))
		return
	}
	s.spawn(lost.stop)
	s.log.acknowledge(response.event.(*SessionStarted).GetInputSequenceAcknowledged())
	for _, kept := range s.log.kept {
		line.put(kept.request)
	}
	s.deliver(&SessionResumed{sessionID, time.Since(began), attempts, failure}, 0)
	s.attach(line)
}

// giveUp says that the session at the gateway is over. If another one can be had, that goes on; else this is the end.
func (s *session) giveUp(ended *SessionEnded, failure *Error) {
	s.givenUp = true
	s.lastEnded, s.lastFailure = ended, failure
	if s.moving == nil {
		s.sayLastWords()
	} else if s.successor != nil {
		s.moveOver()
	}
	s.notify()
}

func (s *session) sayLastWords() {
	if event := s.lastEnded; event != nil {
		s.ended = event
		if seen := s.kind.note(event); seen != nil {
			s.deliver(seen, 0)
		}
	}
	s.finish(s.lastFailure)
}

func (s *session) toldWhatIsLost(failure, why *Error) *Error {
	told := &Error{Kind: KindConnectionLost, Code: codes.Unavailable, Message: failure.Message, cause: failure}
	if why != nil {
		told.Message += "; it could not be resumed: " + why.Message
		told.Reason, told.cause = why.Reason, why
	}
	if what := s.kind.whatIsLost(); what != "" {
		told.Message += "; lost: " + what
	}
	return told
}

func (s *session) beginMoving(timeLeft time.Duration) {
	if s.moving != nil || !s.mayMove() || s.finished {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	moving := &task{ctx, cancel}
	s.moving = moving
	s.spawn(func() { s.move(moving, timeLeft) })
}

// move opens a session elsewhere, and waits until it may follow this one.
func (s *session) move(moving *task, timeLeft time.Duration) {
	defer moving.cancel()
	deadline := time.Now().Add(timeLeft + movePatience)
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh := s.channels.leave(s.line.channel); fresh != nil {
		s.channels.release(fresh)
	}
	for delays := (&delays{}); ; {
		if !s.asleep(moving.ctx, delays.next()) {
			return
		}
		if !time.Now().Before(deadline) {
			break
		}
		// Where it can follow at once, what it starts from must not change until it does.
		s.pause(s.isBetween())
		start := s.kind.startElsewhere()
		line, response, err := s.openElsewhere(moving.ctx, start)
		if s.moving != moving || moving.ctx.Err() != nil {
			if err == nil {
				s.spawn(func() { s.retire(line) })
			}
			return
		}
		if err != nil { // the next try may do better, and the session lives on meanwhile
			s.pause(false)
			continue
		}
		s.successor = &successor{line, response, start}
		if s.isBetween() {
			s.moveOver()
		}
		for s.successor != nil {
			if s.wait(moving.ctx) != nil {
				return
			}
		}
		if s.moving != moving {
			return
		}
	}
	s.moving = nil
	s.pause(false)
	if s.givenUp {
		s.sayLastWords()
	}
}

// asleep lets go of the lock for so long; false where the context is done first.
func (s *session) asleep(ctx context.Context, delay time.Duration) bool {
	s.mu.Unlock()
	defer s.mu.Lock()
	return sleep(ctx, delay)
}

// openElsewhere lets go of the lock while it tries.
func (s *session) openElsewhere(ctx context.Context, start proto.Message) (*line, response, error) {
	s.mu.Unlock()
	defer s.mu.Lock()
	ctx, cancel := context.WithTimeout(ctx, openElsewhereTime)
	defer cancel()
	return s.openSomewhere(ctx, start)
}

func (s *session) isBetween() bool { return s.givenUp || s.kind.isIdle() }

func (s *session) pause(paused bool) {
	s.paused = paused
	s.updateFlow()
}

// moveOver lets the session that was opened elsewhere follow this one.
func (s *session) moveOver() {
	next := s.successor
	s.successor = nil
	if next.line.over || !proto.Equal(next.start, s.kind.startElsewhere()) {
		// It was lost, or the settings have changed since: `move` opens another one.
		s.pause(true)
		s.spawn(func() { s.retire(next.line) })
		s.notify()
		return
	}
	left, was := s.line, s.started
	lostAudio := s.kind.carryOver()
	s.log = inputLog{}
	s.log.add(s.kind, next.start)
	s.receive(next.response)
	for _, item := range s.unfinished {
		next.line.put(s.log.add(s.kind, item.input))
	}
	if s.givenUp {
		s.spawn(left.stop)
	} else {
		s.spawn(func() { s.retire(left) })
	}
	if s.resuming != nil {
		s.resuming.cancel()
	}
	s.resuming, s.moving, s.goAway = nil, nil, nil
	s.givenUp, s.lastEnded, s.lastFailure = false, nil, nil
	s.moves++
	s.paused = false
	s.deliver(&SessionMoved{s.started, was.GetSessionId(), next.line.channel.target, lostAudio}, 0)
	s.attach(next.line)
}

// retire ends a session that is not wanted any more, at the gateway too, which would keep it for its window.
func (s *session) retire(line *line) {
	s.channels.use(line.channel)
	defer s.channels.release(line.channel)
	defer line.stop()
	s.mu.Lock()
	window := s.resumeWindow
	last := s.kind.request(0, &speechv1.EndSession{Discard: true})
	s.mu.Unlock()
	if window == 0 || line.discard(last) {
		return
	}
	s.mu.Lock()
	sessionID, route := line.sessionID, line.route
	s.mu.Unlock()
	if sessionID == "" {
		return
	}
	// It takes no more input, or has no call: it is ended from outside.
	ctx, cancel := context.WithTimeout(line.channel.outgoing(s.ctx, route), closeTime)
	defer cancel()
	_, _ = line.channel.sessions().CloseSession(ctx, &speechv1.CloseSessionRequest{SessionId: sessionID, Discard: true})
}
