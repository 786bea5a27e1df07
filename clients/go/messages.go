package wavegate

import (
	"time"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
)

// The messages of the contract that callers meet. Their fields are documented in protos/wavegate/speech/v1.
type (
	// AudioFormat is how audio is written.
	AudioFormat = speechv1.AudioFormat
	// AudioEncoding is the encoding of samples.
	AudioEncoding = speechv1.AudioEncoding
	// SynthesisSettings are the settings of text to speech; a field that is not set is left to the gateway.
	SynthesisSettings = speechv1.SynthesisSettings
	// TranscriptionSettings are the settings of speech to text; a field that is not set is left to the gateway.
	TranscriptionSettings = speechv1.TranscriptionSettings
	// EffectiveSettings are the settings in force.
	EffectiveSettings = speechv1.EffectiveSettings
	// Keyword is a phrase that the recogniser should expect.
	Keyword = speechv1.Keyword
	// KeywordList holds keywords.
	KeywordList = speechv1.KeywordList
	// ApplyPolicy says how much disruption a change of settings may cause.
	ApplyPolicy = speechv1.ApplyPolicy
	// Status is a status of gRPC inside an event; see StatusError.
	Status = speechv1.Status
	// SessionInfo is a live session, as GetSession and ListSessions give it.
	SessionInfo = speechv1.Session
	// SessionLimits is what the gateway enforces on a session.
	SessionLimits = speechv1.SessionLimits
	// SessionUsage is what a session has used.
	SessionUsage = speechv1.SessionUsage
	// TraceSpan is a timed piece of work in a trace.
	TraceSpan = speechv1.TraceSpan
	// Voice is a voice of the catalogue.
	Voice = speechv1.Voice
	// UpstreamInfo is who served a session upstream.
	UpstreamInfo = speechv1.UpstreamInfo
	// RecognizeResponse is the transcript of a recording.
	RecognizeResponse = speechv1.RecognizeResponse

	// SessionStarted says that a session is open. The first event.
	SessionStarted = speechv1.SessionStarted
	// UtteranceStarted says that an utterance went upstream.
	UtteranceStarted = speechv1.UtteranceStarted
	// AudioChunk is a piece of audio.
	AudioChunk = speechv1.AudioChunk
	// WordTimings are words and their times.
	WordTimings = speechv1.WordTimings
	// UtteranceCompleted says that an utterance was spoken to its end.
	UtteranceCompleted = speechv1.UtteranceCompleted
	// UtteranceCancelled says that an utterance was cancelled, and what was heard of it.
	UtteranceCancelled = speechv1.UtteranceCancelled
	// UtteranceFailed says that an utterance failed; the session goes on.
	UtteranceFailed = speechv1.UtteranceFailed
	// UtteranceMetrics is what the gateway measured of an utterance.
	UtteranceMetrics = speechv1.UtteranceMetrics
	// SettingsAck says what became of a change of settings.
	SettingsAck = speechv1.SettingsAck
	// ConnectionEvent says that something happened to the upstream connection.
	ConnectionEvent = speechv1.ConnectionEvent
	// Warning is something to know that does not stop the stream.
	Warning = speechv1.Warning
	// GoAway says that the session will have to end soon.
	GoAway = speechv1.GoAway
	// SessionEnded says that the session has ended. The last event.
	SessionEnded = speechv1.SessionEnded
	// Transcript is what was said in a stretch of the audio, so far or for good.
	Transcript = speechv1.Transcript
	// TranscriptWord is a word of a transcript.
	TranscriptWord = speechv1.Word
	// SpeechStarted says that a voice began.
	SpeechStarted = speechv1.SpeechStarted
	// SpeechEnded says that a voice stopped.
	SpeechEnded = speechv1.SpeechEnded
	// AudioProgress says how far the audio has come.
	AudioProgress = speechv1.AudioProgress
)

// Encodings of audio. Which ones a call takes is said in the contract with each value.
const (
	Linear16 = speechv1.AudioEncoding_AUDIO_ENCODING_LINEAR16
	Linear32 = speechv1.AudioEncoding_AUDIO_ENCODING_LINEAR32
	Mulaw    = speechv1.AudioEncoding_AUDIO_ENCODING_MULAW
	Alaw     = speechv1.AudioEncoding_AUDIO_ENCODING_ALAW
	Opus     = speechv1.AudioEncoding_AUDIO_ENCODING_OPUS
	OggOpus  = speechv1.AudioEncoding_AUDIO_ENCODING_OGG_OPUS
	MP3      = speechv1.AudioEncoding_AUDIO_ENCODING_MP3
	WAV      = speechv1.AudioEncoding_AUDIO_ENCODING_WAV
)

// How much disruption a change of settings may cause.
const (
	// ApplyAtNextBoundary waits for the next utterance, or the next end of speech. The default.
	ApplyAtNextBoundary = speechv1.ApplyPolicy_APPLY_POLICY_NEXT_BOUNDARY
	// ApplyImmediately changes the utterance that is being spoken too, or cuts the audio at this point.
	ApplyImmediately = speechv1.ApplyPolicy_APPLY_POLICY_IMMEDIATE
	// ApplyWithoutReconnect refuses a change that would need another upstream connection.
	ApplyWithoutReconnect = speechv1.ApplyPolicy_APPLY_POLICY_NO_RECONNECT
)

// Event is what a session says: a pointer to one of the event messages above, or [*SessionResumed] or [*SessionMoved],
// which are this client's own. Use a type switch, and pass over what it does not name: gateways learn new events.
type Event any

// SessionResumed says that the connection was lost and the session goes on over another one: what was sent has
// arrived once, what was missed follows. An event of this client.
type SessionResumed struct {
	// SessionID is the session, which is the same as before.
	SessionID string
	// Outage is how long there was no connection.
	Outage time.Duration
	// Attempts is how many tries it took.
	Attempts int
	// Cause is how the connection was lost.
	Cause *Error
}

// SessionMoved says that the gateway shuts down and that another one goes on with the session. An event of this client.
type SessionMoved struct {
	// Started is the first answer of the other gateway, with the session's new id.
	Started *SessionStarted
	// PreviousSessionID is what the session was called before.
	PreviousSessionID string
	// Target is where the other gateway is.
	Target string
	// LostAudio is the audio that no gateway has transcribed, because it was no longer kept.
	LostAudio time.Duration
}
