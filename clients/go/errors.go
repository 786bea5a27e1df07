package wavegate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// Kind says what sort of failure an [Error] is, and so what can be done about it.
type Kind string

// The kinds of errors.
const (
	// KindOther is none of the others.
	KindOther Kind = "OTHER"
	// KindGatewayUnavailable means that no gateway answers at the target, or that it takes nothing new on.
	KindGatewayUnavailable Kind = "GATEWAY_UNAVAILABLE"
	// KindConnectionLost means that the gateway was there, and went away in mid-call.
	KindConnectionLost Kind = "CONNECTION_LOST"
	// KindInvalidRequest means that a field, a text, a size or an order of messages is not allowed. Not worth
	// repeating unchanged.
	KindInvalidRequest Kind = "INVALID_REQUEST"
	// KindAccessDenied means that the caller's credential is missing, wrong or not enough.
	KindAccessDenied Kind = "ACCESS_DENIED"
	// KindSessionNotFound means that no live session of this caller has that id, or that no trace is held.
	KindSessionNotFound Kind = "SESSION_NOT_FOUND"
	// KindConflict means that the session is not as expected: another settings revision, another owner.
	KindConflict Kind = "CONFLICT"
	// KindCapacity means that a limit is reached: of the caller, the gateway or the account.
	KindCapacity Kind = "CAPACITY"
	// KindUpstream means that the speech service behind the gateway failed, or refused the gateway.
	KindUpstream Kind = "UPSTREAM"
	// KindDeadline means that something took too long.
	KindDeadline Kind = "DEADLINE"
	// KindSessionClosed means that the session has ended, so that nothing can be sent or awaited any more.
	KindSessionClosed Kind = "SESSION_CLOSED"
	// KindCancelled means that the caller's own context was cancelled.
	KindCancelled Kind = "CANCELLED"
	// KindArgument means that this client refuses an argument; nothing was sent.
	KindArgument Kind = "ARGUMENT"
)

// FieldViolation is one field that the gateway refused.
type FieldViolation struct {
	// Field is its path from the request message, such as `start.settings.speed`.
	Field string
	// Description says what is wrong with it.
	Description string
}

// QuotaViolation is one limit that was reached.
type QuotaViolation struct {
	// Subject says whose limit it is.
	Subject string
	// Description says which limit it is.
	Description string
}

// Error is the failure of a call, a session or an utterance. Its text says what happened and what to do.
type Error struct {
	// Kind is the sort of failure.
	Kind Kind
	// Code is the status of gRPC that it came with.
	Code codes.Code
	// Reason is the stable name of what happened, such as FIELD_INVALID; empty where no gateway gave one.
	Reason string
	// Message is for people, and may change.
	Message string
	// RetryDelay is how long to wait before trying again; zero where the gateway gave no such advice.
	RetryDelay time.Duration
	// FieldViolations names every field that was refused.
	FieldViolations []FieldViolation
	// QuotaViolations names the limits that were reached.
	QuotaViolations []QuotaViolation
	// Metadata are particulars, by name.
	Metadata map[string]string

	advised bool // whether there was a RetryInfo
	cause   error
}

// Error gives the message, and the violations that it does not name itself.
func (e *Error) Error() string {
	var text strings.Builder
	text.WriteString(e.Message)
	for _, violation := range e.FieldViolations {
		if !strings.Contains(e.Message, violation.Description) {
			fmt.Fprintf(&text, "; %s: %s", violation.Field, violation.Description)
		}
	}
	return text.String()
}

// Unwrap gives what caused it: the context's error, the status of gRPC or the loss before a failed resume.
func (e *Error) Unwrap() error { return e.cause }

// Retryable says whether the same call may well succeed later, with nothing changed.
func (e *Error) Retryable() bool {
	return e.advised || e.Code == codes.Unavailable || e.Code == codes.ResourceExhausted
}

// GRPCStatus lets the status package of gRPC read the code and the message of the error.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Error()) }

// kindsByReason are the reasons that say more than the status code does.
var kindsByReason = map[string]Kind{
	"UPSTREAM_CREDENTIAL":  KindUpstream,
	"UPSTREAM_GONE":        KindUpstream,
	"UPSTREAM_UNAVAILABLE": KindUpstream,
	"UPSTREAM_STALLED":     KindUpstream,
	"UPSTREAM_PROTOCOL":    KindUpstream,
}

var kindsByCode = map[codes.Code]Kind{
	codes.Unavailable:       KindGatewayUnavailable,
	codes.InvalidArgument:   KindInvalidRequest,
	codes.OutOfRange:        KindInvalidRequest,
	codes.Unauthenticated:   KindAccessDenied,
	codes.PermissionDenied:  KindAccessDenied,
	codes.NotFound:          KindSessionNotFound,
	codes.Aborted:           KindConflict,
	codes.ResourceExhausted: KindCapacity,
	codes.DeadlineExceeded:  KindDeadline,
}

// StatusError gives the error for a status inside an event, such as UtteranceFailed.Error; nil where the status is OK
// or not there. Details of an unknown type are passed over.
func StatusError(status *Status) *Error {
	if status.GetCode() == int32(codes.OK) {
		return nil
	}
	return errorFromStatus(codes.Code(status.GetCode()), status.GetMessage(), status.GetDetails())
}

func errorFromStatus(code codes.Code, message string, details []*anypb.Any) *Error {
	if code > codes.Unauthenticated {
		code = codes.Unknown
	}
	e := &Error{Code: code, Message: message}
	for _, detail := range details {
		// A damaged detail must not hide the code and the message.
		unpacked, err := detail.UnmarshalNew()
		if err != nil {
			continue
		}
		switch unpacked := unpacked.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = unpacked.GetReason(), unpacked.GetMetadata()
		case *errdetails.RetryInfo:
			e.advised, e.RetryDelay = true, unpacked.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			for _, v := range unpacked.GetFieldViolations() {
				e.FieldViolations = append(e.FieldViolations, FieldViolation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.QuotaFailure:
			for _, v := range unpacked.GetViolations() {
				e.QuotaViolations = append(e.QuotaViolations, QuotaViolation{v.GetSubject(), v.GetDescription()})
			}
		}
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("the gateway answered %s without a message", CodeName(code))
	}
	e.Kind = kindsByReason[e.Reason]
	if e.Kind == "" {
		e.Kind = kindsByCode[code]
	}
	if e.Kind == "" {
		e.Kind = KindOther
	}
	return e
}

// CodeName gives the name of a status code as the contract and its documents write it: RESOURCE_EXHAUSTED.
func CodeName(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED" // which Go spells otherwise
	}
	var name strings.Builder
	for at, letter := range code.String() {
		if at > 0 && letter >= 'A' && letter <= 'Z' && code != codes.OK {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}

// tooLarge is what gRPC says, on either side, of a message above a transport's limit. Its code for that,
// RESOURCE_EXHAUSTED, is also that of limits that pass; this one does not.
var tooLarge = regexp.MustCompile(`(?i)(sen[dt]|received) message (?:after decompression )?larger than max \((\d+) vs\. (\d+)\)`)

func requestTooLarge(size, limit, field string) *Error {
	wrong := fmt.Sprintf("at most %s bytes with the rest of the request, got %s; stream a larger recording "+
		"(Transcribe and StreamAudio), or give its address (TranscribeURI)", limit, size)
	what := "request"
	e := &Error{Kind: KindInvalidRequest, Code: codes.InvalidArgument}
	if field != "" {
		what = "recording"
		e.FieldViolations = []FieldViolation{{field, wrong}}
	}
	e.Message = fmt.Sprintf("the %s is too large: %s", what, wrong)
	return e
}

// looksLost says whether a broken connection may look like this through gRPC and the proxies in use, which do not
// agree on one code.
func looksLost(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Internal, codes.Canceled, codes.Unknown:
		return true
	}
	return false
}

// unreadable is how gRPC says that an answer is no message of its kind. No other call would get a better one.
const unreadable = "failed to unmarshal"

// errorFromRPC gives the error for a call that gRPC ended. answered says whether the gateway had sent anything in
// it, which tells a gateway that is not there from one that went away.
func errorFromRPC(err error, target string, answered, tls bool) *Error {
	if known := (*Error)(nil); errors.As(err, &known) {
		return known
	}
	st := status.Convert(err)
	code, text := st.Code(), st.Message()
	if details := st.Proto().GetDetails(); len(details) > 0 {
		return errorFromStatus(code, text, details)
	}
	e := &Error{Kind: kindsByCode[code], Code: code, Message: text, cause: err}
	match := tooLarge.FindStringSubmatch(text)
	switch {
	case code == codes.ResourceExhausted && match != nil && strings.HasPrefix(text, "grpc: received"):
		e.Kind, e.Code = KindInvalidRequest, codes.InvalidArgument
		e.Message = fmt.Sprintf("the answer of the gateway at %s is too large: %s bytes in one message, and this client "+
			"takes %s; ask for less, or raise the limit with WithDialOptions", target, match[2], match[3])
	case code == codes.ResourceExhausted && match != nil:
		return requestTooLarge(match[2], match[3], "")
	case strings.Contains(text, unreadable):
		e.Kind, e.Message = KindOther, fmt.Sprintf("an answer of the gateway at %s cannot be read: %s", target, text)
	case answered && looksLost(code):
		e.Kind, e.Code = KindConnectionLost, codes.Unavailable
		e.Message = fmt.Sprintf("the connection to the gateway at %s was lost (%s); open a new session", target, text)
	case code == codes.Unavailable:
		e.Message = whyUnavailable(text, target, tls)
	case code == codes.Unimplemented:
		e.Kind = KindOther
		e.Message = fmt.Sprintf("the gateway at %s does not know this call (%s); it may be older than this client", target, text)
	default:
		return errorFromStatus(code, text, nil)
	}
	return e
}

// troubles are what gRPC's texts say where encryption or the protocol is what failed, and what to say instead.
var troubles = []struct {
	tls      bool
	words    string
	sentence string
}{
	{true, "does not look like a TLS handshake", "what answers there does not speak TLS; connect without WithTLS"},
	{true, "unknown authority", "the certificate there comes from an authority that is not trusted here; name the " +
		"authority with WithRootCertificates"},
	{true, "x509: certificate is", "the certificate there is for another name; connect by the name that it holds"},
	{true, "x509: cannot validate", "the certificate there is for another name; connect by the name that it holds"},
	{true, "certificate has expired", "the certificate there has expired, or is not valid yet"},
	{true, "certificate required", "what answers there asks for its callers' certificates; give one with " +
		"WithClientCertificate"},
	{true, "bad certificate", "what answers there does not accept the certificate of WithClientCertificate, or asks for one"},
	{false, "looked like an HTTP/1.1 header", "what answers there speaks HTTP/1; is that the port of its metrics?"},
	{true, "HTTP/1", "what answers there speaks HTTP/1; is that the port of its metrics?"},
	{true, "no application protocol", "what answers there does not speak HTTP/2 over TLS; is that the right port?"},
	{true, "ALPN", "what answers there does not speak HTTP/2 over TLS; is that the right port?"},
}

func whyUnavailable(text, target string, tls bool) string {
	for _, trouble := range troubles {
		if trouble.tls == tls && strings.Contains(text, trouble.words) {
			return fmt.Sprintf("no gateway at %s: %s", target, trouble.sentence)
		}
	}
	hungUp := strings.Contains(text, "EOF") || strings.Contains(text, "connection reset") ||
		strings.Contains(text, "broken pipe")
	switch {
	case hungUp && tls:
		return fmt.Sprintf("no gateway at %s: what answers there hangs up on an encrypted connection, as a gateway that "+
			"serves none does, or one that asks for its callers' certificates (WithClientCertificate) (%s)", target, text)
	case hungUp:
		return fmt.Sprintf("no gateway at %s: what answers there hangs up on a connection in clear text; if it serves "+
			"TLS, connect with WithTLS or WithRootCertificates (%s)", target, text)
	}
	proxy := proxyTo(target)
	why := ""
	if text != "" && (proxy != "" || !strings.Contains(text, "refused")) {
		why = fmt.Sprintf(" (%s)", text)
	}
	if proxy != "" {
		host, _, _ := splitTarget(target)
		return fmt.Sprintf("no gateway at %s through the proxy %s of the environment%s; with NO_PROXY=%s it is reached directly",
			target, proxy, why, host)
	}
	return fmt.Sprintf("no gateway at %s; start one with `make run` or `wavegate-server`%s", target, why)
}

// status gives the error as it would stand in an event of the gateway.
func (e *Error) status() *Status {
	status := &Status{Code: int32(e.Code), Message: e.Message}
	if info, err := anypb.New(&errdetails.ErrorInfo{Reason: e.Reason, Domain: "wavegate.speech"}); err == nil && e.Reason != "" {
		status.Details = []*anypb.Any{info}
	}
	return status
}

func (e *Error) isDraining() bool { return e != nil && e.Reason == "GATEWAY_DRAINING" }

// proxyTo is the proxy that gRPC takes to HOST:PORT, without its user and password; empty where it connects directly.
func proxyTo(target string) string {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: target}})
	if err != nil || proxy == nil {
		return ""
	}
	return proxy.Scheme + "://" + proxy.Host
}

func argumentError(format string, values ...any) *Error {
	return &Error{Kind: KindArgument, Code: codes.InvalidArgument, Message: fmt.Sprintf(format, values...)}
}

func sessionClosed(message string) *Error {
	return &Error{Kind: KindSessionClosed, Code: codes.Unknown, Message: message}
}

// contextError gives the error for a context that is done. errors.Is finds context.Canceled and
// context.DeadlineExceeded in it, and the cause where there is one.
func contextError(ctx context.Context) *Error {
	err := ctx.Err()
	cause := err
	if given := context.Cause(ctx); given != nil && !errors.Is(given, err) {
		cause = errors.Join(err, given)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Kind: KindDeadline, Code: codes.DeadlineExceeded, Message: "the context's deadline has passed", cause: cause}
	}
	return &Error{Kind: KindCancelled, Code: codes.Canceled, Message: "the context was cancelled", cause: cause}
}

// asError gives any error as one of this package.
func asError(err error) *Error {
	if err == nil {
		return nil
	}
	if known := (*Error)(nil); errors.As(err, &known) {
		return known
	}
	return &Error{Kind: KindOther, Code: codes.Internal, Message: err.Error(), cause: err}
}

// isReset says whether a proxy on the way has broken a call off.
func isReset(err error) bool {
	known := asError(err)
	return known != nil && known.Code == codes.Internal && known.Reason == "" && strings.Contains(known.Message, "RST_STREAM")
}

func isUnavailable(err error) bool {
	known := asError(err)
	return known != nil && (known.Kind == KindGatewayUnavailable || known.Kind == KindConnectionLost)
}
