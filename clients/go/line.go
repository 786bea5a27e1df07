package wavegate

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

const (
	// goodbyeTime is how long the gateway may take to end the call after its last message; it gives our side 1 s to
	// stop writing.
	goodbyeTime = 2 * time.Second
	// lastWriteTime is how long a call that nobody wants any more may take for its last request,
	lastWriteTime = 500 * time.Millisecond
	// lastAnswerTime is how long its other end may take for ending it.
	lastAnswerTime = time.Second
)

// response is what a message from the gateway says, whatever the kind of stream. event is nil where this client does
// not know it.
type response struct {
	sequence     int64
	acknowledged int64
	sessionID    string // of a settings stream
	event        Event
}

// protocol is how a kind of stream is called and read.
type protocol struct {
	open       func(context.Context, *channel) (grpc.ClientStream, error)
	newMessage func() proto.Message
	convert    func(proto.Message) response
}

// lineOwner is told what happens on a line. Its methods are called with the lock of the core held.
type lineOwner interface {
	// onResponse gives true if it is the last one.
	onResponse(*line, response) bool
	// onOver is told that the call is over: after a failure, or in good order, or because this side cancelled it.
	onOver(*line, *Error)
}

// line is one call: a goroutine writes what waits in the outbox, another reads as long as nothing holds it.
//
// Its fields below mu are guarded by the lock of the core.
type line struct {
	core       *core
	channel    *channel
	protocol   protocol
	ctx        context.Context
	cancel     context.CancelFunc
	work       chan struct{} // there may be something to write
	readerDone chan struct{}
	writerDone chan struct{}
	writeError atomic.Pointer[error] // why a request could not go, if the call itself does not know

	owner     lineOwner // nil once nobody is told any more
	outbox    []proto.Message
	halfClose bool
	queued    int
	written   int
	sessionID string // what the gateway named the session, which it does before the upstream has accepted it
	route     string // what leads a balancer to the same gateway again; empty where there is none, or it does not say
	over      bool
	cancelled bool          // this side ended the call
	failure   *Error        // why it is over, unless it ended in good order
	held      chan struct{} // while open, nothing is handed on; nil where nothing holds it
}

// newLine makes a call; route, if any, is that of an earlier one. The lock of the core is held.
func newLine(
	ctx context.Context, core *core, owner lineOwner, channel *channel, protocol protocol, route string,
) *line {
	ctx, cancel := context.WithCancel(channel.outgoing(ctx, route))
	l := &line{
		core: core, owner: owner, channel: channel, protocol: protocol, ctx: ctx, cancel: cancel, route: route,
		work: make(chan struct{}, 1), readerDone: make(chan struct{}), writerDone: make(chan struct{}),
	}
	core.channels.use(channel)
	core.spawn(l.read)
	return l
}

// put sends a request after those before it; written reaches the number given back once it has gone. The lock is held.
func (l *line) put(request proto.Message) int {
	l.outbox = append(l.outbox, request)
	l.queued++
	l.wake()
	return l.queued
}

// end half-closes the call once everything queued is written. The lock is held.
func (l *line) end() {
	l.halfClose = true
	l.wake()
}

func (l *line) wake() {
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// hold stops the handing on of responses, or lets it go on. The lock is held.
func (l *line) hold(held bool) {
	switch {
	case held && l.held == nil:
		l.held = make(chan struct{})
	case !held && l.held != nil:
		close(l.held)
		l.held = nil
	}
}

// discard sends last instead of what is not sent yet, and waits for the end, of which nobody is told any more. False
// if that did not come in time.
func (l *line) discard(last proto.Message) bool {
	l.core.mu.Lock()
	l.owner = nil
	l.hold(false)
	l.queued -= len(l.outbox)
	l.outbox = nil
	l.put(last)
	l.end()
	l.core.mu.Unlock()
	waitFor(l.writerDone, lastWriteTime)
	l.core.mu.Lock()
	sent := l.written == l.queued && !l.over
	l.core.mu.Unlock()
	// A message that is sent may still wait for the gateway to read what came before it.
	return sent && waitFor(l.readerDone, lastAnswerTime)
}

// stop ends the call, if it lives, and its goroutines. Takes no longer than the goodbye.
func (l *line) stop() {
	l.core.mu.Lock()
	if !l.over {
		l.cancelled = true
		l.cancel()
	}
	l.core.mu.Unlock()
	<-l.readerDone
	<-l.writerDone
}

// waitFor reports whether done was closed in time.
func waitFor(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (l *line) write(stream grpc.ClientStream) {
	defer close(l.writerDone)
	for {
		l.core.mu.Lock()
		var next proto.Message
		if len(l.outbox) > 0 {
			next = l.outbox[0]
			l.outbox[0] = nil
			l.outbox = l.outbox[1:]
		}
		end := l.halfClose
		l.core.mu.Unlock()
		switch {
		case next != nil:
			if err := stream.SendMsg(next); err != nil {
				if !errors.Is(err, io.EOF) { // else the call is over; the reader learns why
					l.writeError.CompareAndSwap(nil, &err)
					l.cancel()
				}
				return
			}
			l.core.mu.Lock()
			l.written = l.queued - len(l.outbox)
			l.core.notify()
			l.core.mu.Unlock()
		case end:
			_ = stream.CloseSend()
			return
		default:
			select {
			case <-l.work:
			case <-l.ctx.Done():
				return
			}
		}
	}
}

func (l *line) read() {
	defer close(l.readerDone)
	defer l.core.channels.release(l.channel)
	defer l.cancel()
	stream, answered, last, err := l.receive()
	l.core.mu.Lock()
	if !errors.Is(err, io.EOF) && !last {
		if why := l.writeError.Load(); why != nil && !l.cancelled {
			err = *why
		}
		if !l.cancelled && l.core.channels.isClosed() {
			l.cancelled = true // the client was closed, and the connection with it
		}
		if !l.cancelled {
			l.failure = l.channel.error(err, answered || l.sessionID != "")
		}
	}
	l.over = true
	if l.owner != nil {
		l.owner.onOver(l, l.failure)
	}
	l.core.notify()
	l.core.mu.Unlock()
	if last {
		l.goodbye(stream)
	}
}

// receive makes the call and hands on what comes, to its end or to its last response.
func (l *line) receive() (stream grpc.ClientStream, answered, last bool, err error) {
	stream, err = l.protocol.open(l.ctx, l.channel)
	if err != nil {
		close(l.writerDone)
		return nil, false, false, err
	}
	l.core.spawn(func() { l.write(stream) })
	if header, headerErr := stream.Header(); headerErr == nil {
		l.core.mu.Lock()
		if named := header.Get("wavegate-session-id"); len(named) > 0 {
			l.sessionID = named[0]
		}
		if route := header.Get(routeKey); len(route) > 0 {
			l.route = route[0]
		}
		l.core.mu.Unlock()
	}
	for {
		message := l.protocol.newMessage()
		if err := stream.RecvMsg(message); err != nil {
			return stream, answered, false, err
		}
		answered = true
		if last, err := l.handOn(l.protocol.convert(message)); last || err != nil {
			return stream, answered, last, err
		}
	}
}

func (l *line) handOn(response response) (bool, error) {
	l.core.mu.Lock()
	defer l.core.mu.Unlock()
	for l.held != nil {
		held := l.held
		l.core.mu.Unlock()
		select {
		case <-held:
		case <-l.ctx.Done():
		}
		l.core.mu.Lock()
		if err := l.ctx.Err(); err != nil {
			return false, err
		}
	}
	return l.owner != nil && l.owner.onResponse(l, response), nil
}

// goodbye lets the gateway end the call itself, so that both sides see the same status.
func (l *line) goodbye(stream grpc.ClientStream) {
	l.core.mu.Lock()
	l.outbox = nil
	l.end()
	l.core.mu.Unlock()
	timer := time.AfterFunc(goodbyeTime, l.cancel)
	defer timer.Stop()
	for stream.RecvMsg(l.protocol.newMessage()) == nil {
		continue
	}
}
