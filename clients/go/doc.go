// Package wavegate speaks and listens through a wavegate gateway.
//
// A [Client] is a connection to a gateway, or to several. [Client.Synthesize] opens a [SynthesisSession]: text in,
// audio out, an [Utterance] for each piece of speech. [Client.Transcribe] opens a [TranscriptionSession]: audio in,
// transcripts out. [Client.SettingsStream] changes the settings of sessions that run elsewhere.
//
//	client, err := wavegate.NewClient("127.0.0.1:50051")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	session, err := client.Synthesize(ctx, &wavegate.SynthesisSettings{VoiceId: new("magnus")})
//	if err != nil {
//		return err
//	}
//	defer session.Close()
//	utterance, err := session.Say(ctx, "Good morning. What can I do for you?")
//	if err != nil {
//		return err
//	}
//	_, err = io.Copy(speaker, utterance.Reader(ctx))
//
// Settings, audio formats and events are the messages of the contract, which are aliased here. Whatever goes wrong
// with the gateway is an [*Error] with a [Kind].
//
// # Contexts
//
// The context that a session is opened with is that of the session, as with any stream of gRPC: when it is done,
// the session ends at once, at the gateway too. The gateway is not told of a deadline that it may have. The context of
// any other call governs the wait of that call alone: giving up a wait takes nothing back that was sent, and loses no
// event.
//
// # Leaving
//
// [SynthesisSession.Finish] ends a session in good order: what was sent is finished, and the failure of the session is
// returned if nothing has returned it before. Close ends it at once; it is meant for defer, and has no effect
// once the session is over. A session that is dropped without Close is ended when the garbage collector finds it.
//
// # Concurrency
//
// All methods may be called from several goroutines at once. Events have one consumer at a time: two of them
// would share the events between them.
package wavegate
