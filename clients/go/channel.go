package wavegate

import (
	"context"
	"sync"
	"time"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	// maxMessageBytes is the gateway's own limit for a whole recording in one request.
	maxMessageBytes = 32 << 20
	// windowBytes keeps what the transport takes ahead of the reader small: audio waits in the gateway, where a cancel
	// can drop it, and not for over a minute of playing time in this process. A fixed window does not grow.
	windowBytes = 64 << 10
	// routeKey is what a balancer puts into the initial metadata, and what leads a later call to the same gateway.
	routeKey = "wavegate-route"
)

// transportOptions are those of every connection; the caller's come behind them.
func transportOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(windowBytes),
		// The connection's window is shared by its streams, one of which may not be read for a while.
		grpc.WithStaticConnWindowSize(16 * windowBytes),
		// A peer that vanished is noticed within half a minute, also in a long silence.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// A lost connection is made again as soon as a session wants to be resumed over it, not seconds later.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallSendMsgSize(maxMessageBytes), grpc.MaxCallRecvMsgSize(maxMessageBytes),
		),
		// Names are looked up for addresses only: a policy of retries from a TXT record would repeat what must not be.
		grpc.WithDisableServiceConfig(),
		grpc.WithResolvers(addressList{"ipv4"}, addressList{"ipv6"}),
	}
}

// channelConfig is what the channels of a client have in common.
type channelConfig struct {
	tls        bool
	roundRobin bool
	dial       []grpc.DialOption
	metadata   []string // keys and values in turn
	propagator propagation.TextMapPropagator
}

// channel is the connection to one target, with what every call of it carries.
type channel struct {
	config *channelConfig
	target string
	conn   *grpc.ClientConn
	lines  int // how many calls are open on it, or about to be; guarded by channels.mu
}

// newChannel connects to nothing yet.
func newChannel(config *channelConfig, target string) (*channel, error) {
	conn, err := grpc.NewClient(target, config.dial...)
	if err != nil {
		return nil, argumentError("%q cannot be a target: %v", target, err)
	}
	return &channel{config: config, target: target, conn: conn}, nil
}

func (c *channel) synthesis() speechv1.SynthesisServiceClient {
	return speechv1.NewSynthesisServiceClient(c.conn)
}

func (c *channel) transcription() speechv1.TranscriptionServiceClient {
	return speechv1.NewTranscriptionServiceClient(c.conn)
}

func (c *channel) sessions() speechv1.SessionServiceClient {
	return speechv1.NewSessionServiceClient(c.conn)
}

// outgoing adds what goes with every call: the client's metadata and token, the trace context of the span in ctx, and
// route if any.
func (c *channel) outgoing(ctx context.Context, route string) context.Context {
	pairs := c.config.metadata
	if c.config.propagator != nil {
		carrier := propagation.MapCarrier{}
		c.config.propagator.Inject(ctx, carrier)
		for key, value := range carrier {
			pairs = append(pairs[:len(pairs):len(pairs)], key, value)
		}
	}
	if route != "" {
		pairs = append(pairs[:len(pairs):len(pairs)], routeKey, route)
	}
	if len(pairs) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// error gives the error for how gRPC ended a call of this channel.
func (c *channel) error(err error, answered bool) *Error {
	return errorFromRPC(err, c.target, answered, c.config.tls)
}

// channels are those of a client: one a target, the one in use first.
type channels struct {
	mu       sync.Mutex
	list     []*channel
	replaced []*channel
	closed   bool
	closing  sync.WaitGroup // of connections; that takes a moment where the network hangs
}

// current is where new calls go.
func (c *channels) current() *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list[0]
}

// acquire gives the one where new calls go, with a call counted on it.
func (c *channels) acquire() *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list[0].lines++
	return c.list[0]
}

// candidates are where a session may be opened, in the order of preference, with a call counted on each.
func (c *channels) candidates() []*channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, candidate := range c.list {
		candidate.lines++
	}
	return append([]*channel(nil), c.list...)
}

// prefer says that this one works: what comes next goes there first.
func (c *channels) prefer(preferred *channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, candidate := range c.list {
		if candidate == preferred {
			c.list = append(append([]*channel(nil), c.list[at:]...), c.list[:at]...)
			return
		}
	}
}

// leave says that the gateway there shuts down: the other targets come first, and a fresh connection to this one, which
// may lead to another process behind the same address, last. The old connection stays as long as calls use it. Gives
// the fresh one, with a call counted on it; nil where it was left before.
func (c *channels) leave(left *channel) *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	var fresh *channel
	for at, candidate := range c.list {
		if candidate != left {
			continue
		}
		made, err := newChannel(left.config, left.target)
		if err != nil {
			return nil // the same target was good before
		}
		fresh = made
		fresh.lines++
		c.list = append(append(append([]*channel(nil), c.list[:at]...), c.list[at+1:]...), fresh)
		c.replaced = append(c.replaced, left)
		break
	}
	c.closeUnused()
	return fresh
}

// use counts a call on a channel.
func (c *channels) use(used *channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used.lines++
}

// release says that a call on each of these channels is over.
func (c *channels) release(used ...*channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, channel := range used {
		channel.lines--
	}
	c.closeUnused()
}

func (c *channels) closeUnused() {
	kept := c.replaced[:0]
	for _, old := range c.replaced {
		if old.lines > 0 {
			kept = append(kept, old)
		} else {
			c.closing.Go(func() { _ = old.conn.Close() })
		}
	}
	c.replaced = kept
}

// close ends every call and closes every connection.
func (c *channels) close() {
	c.mu.Lock()
	c.closed = true
	for _, open := range append(c.list, c.replaced...) {
		c.closing.Go(func() { _ = open.conn.Close() })
	}
	c.list, c.replaced = c.list[:len(c.list):len(c.list)], nil
	c.mu.Unlock()
	c.closing.Wait()
}

// isClosed says whether the client was closed, so that a call that ends did not fail.
func (c *channels) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
