package wavegate

import (
	"context"
	"io"
	"sync"
)

// buffered is an event that nobody has read yet.
type buffered struct {
	event Event
	size  int
}

// core is what every kind of stream shares: a line, a buffer of events, and waiting.
//
// Callers never touch the call of gRPC: they change the state under mu and wait for another state, so giving up such a
// wait leaves the call as it is. Reading stops at a full buffer, so that audio piles up in the gateway and not here; but
// it goes on while anybody waits for an answer or for room to write, because what they wait for may lie behind
// that audio.
type core struct {
	channels    *channels
	bufferLimit int // bytes; 0: none
	goroutines  group

	mu            sync.Mutex
	changed       chan struct{} // closed with the next change; nil while nobody waits
	line          *line
	inputEnded    bool
	buffer        []buffered
	bufferedBytes int
	discarding    bool
	waiting       int
	paused        bool
	finished      bool
	failure       *Error
	failureSeen   bool
	onFinished    func() // the lock is held
}

// spawn runs work in a goroutine that ends before the stream is closed.
func (c *core) spawn(work func()) { c.goroutines.run(work) }

// group counts goroutines. Unlike a sync.WaitGroup it may be waited for while others begin.
type group struct {
	mu      sync.Mutex
	running int
	idle    chan struct{} // closed once none runs; nil while nobody waits
}

func (g *group) run(work func()) {
	g.mu.Lock()
	g.running++
	g.mu.Unlock()
	go func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.running--
			if g.running == 0 && g.idle != nil {
				close(g.idle)
				g.idle = nil
			}
		}()
		work()
	}()
}

// done gives a channel that is closed once none runs.
func (g *group) done() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}

// --- receiving -----------------------------------------------------------------------------------

func (c *core) deliver(event Event, size int) {
	if c.discarding {
		return
	}
	c.buffer = append(c.buffer, buffered{event, size})
	c.bufferedBytes += size
	c.updateFlow()
}

// take gives the next event; at the end the failure if there is one, or io.EOF.
func (c *core) take() (Event, error) {
	if len(c.buffer) == 0 {
		if c.failure != nil {
			c.failureSeen = true
			return nil, c.failure
		}
		return nil, io.EOF
	}
	next := c.buffer[0]
	c.buffer[0] = buffered{}
	c.buffer = c.buffer[1:]
	c.bufferedBytes -= next.size
	c.updateFlow()
	return next.event, nil
}

// next waits for the next event; io.EOF at the end.
func (c *core) next(ctx context.Context, enough func() bool) (Event, error) {
	for len(c.buffer) == 0 && !c.finished && !enough() {
		if err := c.wait(ctx); err != nil {
			return nil, err
		}
	}
	if enough() {
		return nil, io.EOF
	}
	return c.take()
}

// drop takes events out of the buffer.
func (c *core) drop(unwanted func(Event) bool) {
	kept := c.buffer[:0]
	c.bufferedBytes = 0
	for _, item := range c.buffer {
		if !unwanted(item.event) {
			kept = append(kept, item)
			c.bufferedBytes += item.size
		}
	}
	clear(c.buffer[len(kept):])
	c.buffer = kept
	c.updateFlow()
}

func (c *core) updateFlow() {
	if c.line == nil {
		return
	}
	room := c.bufferLimit == 0 || c.bufferedBytes < c.bufferLimit || c.waiting > 0
	c.line.hold(!room || c.paused)
}

// --- waiting -------------------------------------------------------------------------------------

func (c *core) notify() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// wait lets go of the lock until something changes.
func (c *core) wait(ctx context.Context) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	changed := c.changed
	c.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	c.mu.Lock()
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	return nil
}

// until waits until it is ready; gives the stream's failure, or that it is closed, if it never will be.
func (c *core) until(ctx context.Context, ready func() bool) error {
	if ready() {
		return nil
	}
	c.waiting++
	c.updateFlow()
	defer func() {
		c.waiting--
		c.updateFlow()
	}()
	for !ready() {
		if c.finished {
			return c.closedError()
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *core) closedError() error {
	if c.failure == nil {
		return sessionClosed("the session has ended; open another one")
	}
	c.failureSeen = true
	return c.failure
}

func (c *core) checkOpen() error {
	if c.finished {
		return c.closedError()
	}
	if c.inputEnded {
		return sessionClosed("the session's input has ended; open another session to send more")
	}
	return nil
}

// --- the end -------------------------------------------------------------------------------------

func (c *core) finish(failure *Error) {
	if c.finished {
		return
	}
	c.finished = true
	c.failure = failure
	if c.onFinished != nil {
		c.onFinished()
	}
	c.notify()
}

// drain waits for the end and throws away what comes; gives the stream's failure if nobody has seen it yet.
func (c *core) drain(ctx context.Context) error {
	c.discarding = true
	c.drop(func(Event) bool { return true })
	defer func() { c.discarding = false }()
	if err := c.until(ctx, func() bool { return c.finished }); err != nil {
		return err
	}
	if c.failure != nil && !c.failureSeen {
		return c.closedError()
	}
	return nil
}
