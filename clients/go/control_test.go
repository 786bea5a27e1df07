package wavegate_test

import (
	"testing"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type controlCall = fakeCall[speechv1.UpdateSettingsRequest, speechv1.UpdateSettingsResponse]

func ack(t *testing.T, call *controlCall, request *speechv1.UpdateSettingsRequest, state speechv1.SettingsAck_State, failure *wavegate.Status) {
	t.Helper()
	err := call.stream.Send(&speechv1.UpdateSettingsResponse{
		SessionId: request.GetSessionId(),
		Event: &speechv1.UpdateSettingsResponse_Ack{
			Ack: &wavegate.SettingsAck{UpdateId: request.GetUpdateId(), State: state, Error: failure},
		},
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSettingsStream(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	client := connect(t, nil, gateway)
	stream, err := client.SettingsStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		call := accept(t, gateway.control)
		request := call.recv(t)
		if request.GetSessionId() != "s-1" || request.GetSynthesis().GetSpeed() != 1.25 || request.GetAfterInputSequence() != 4 ||
			!request.GetWatch() || request.GetUpdateId() == "" {
			t.Errorf("the request is %v", request)
		}
		ack(t, call, request, speechv1.SettingsAck_STATE_QUEUED, nil)
		ack(t, call, request, speechv1.SettingsAck_STATE_APPLIED, nil)
		request = call.recv(t)
		ack(t, call, request, speechv1.SettingsAck_STATE_REJECTED, inStream(refusal(codes.NotFound, "SESSION_NOT_FOUND", "there is none")))
		request = call.recv(t)
		if request.GetSettings() != nil || request.GetResetMask().GetPaths()[0] != "keywords" {
			t.Errorf("the request is %v", request)
		}
		ack(t, call, request, speechv1.SettingsAck_STATE_SESSION_ENDED, nil)
	}()
	applied, err := stream.UpdateSynthesis(ctx, "s-1", &wavegate.SynthesisSettings{Speed: new(1.25)},
		wavegate.WithAfterInputSequence(4), wavegate.WithWatch())
	if err != nil || applied.GetState() != speechv1.SettingsAck_STATE_APPLIED {
		t.Errorf("the ack is %v, %v", applied, err)
	}
	_, err = stream.UpdateTranscription(ctx, "s-2", &wavegate.TranscriptionSettings{})
	wantKind(t, err, wavegate.KindSessionNotFound)
	_, err = stream.UpdateTranscription(ctx, "s-2", nil, wavegate.WithReset("keywords"))
	wantKind(t, err, wavegate.KindSessionClosed)
	states := []speechv1.SettingsAck_State{}
	for change, err := range stream.Changes(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, change.Event.(*wavegate.SettingsAck).GetState())
		if len(states) == 4 {
			break
		}
	}
	if err := stream.Finish(ctx); err != nil {
		t.Error(err)
	}
	_ = stream.Close()
	_, err = stream.UpdateSynthesis(ctx, "s-1", nil)
	wantKind(t, err, wavegate.KindSessionClosed)
}

func TestSettingsStreamIsLost(t *testing.T) {
	ctx := testContext(t)
	gateway := newFake(t)
	stream, err := connect(t, nil, gateway).SettingsStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		call := accept(t, gateway.control)
		request := call.recv(t)
		ack(t, call, request, speechv1.SettingsAck_STATE_QUEUED, nil)
		call.end <- status.Error(codes.Unavailable, "the network has failed")
	}()
	_, err = stream.UpdateSynthesis(ctx, "s-1", &wavegate.SynthesisSettings{})
	wantKind(t, err, wavegate.KindConnectionLost)
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}
