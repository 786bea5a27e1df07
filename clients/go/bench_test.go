package wavegate_test

import (
	"context"
	"errors"
	"io"
	"testing"

	wavegate "example.com/wavegate/clients/go"
	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// BenchmarkChunk takes 100 ms of audio b.N times, with the client and with the bare stubs.
func BenchmarkChunk(b *testing.B) {
	audio := make([]byte, 4800)
	send := func(call *synthesisCall, n int) {
		for i := range n {
			call.sequence++
			_ = call.stream.SendMsg(response(call.sequence, 1, &wavegate.AudioChunk{UtteranceId: "u1", ChunkIndex: int32(i), Audio: audio}))
		}
	}
	b.Run("client", func(b *testing.B) {
		gateway := newFake(b)
		client, err := wavegate.NewClient(gateway.target)
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		session, call := synthesize(b, context.Background(), client, gateway)
		defer session.Close()
		b.ReportAllocs()
		b.ResetTimer()
		go send(call, b.N)
		for n := 0; n < b.N; {
			event, err := session.Next(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			if _, is := event.(*wavegate.AudioChunk); is {
				n++
			}
		}
	})
	b.Run("stubs", func(b *testing.B) {
		gateway := newFake(b)
		conn, err := grpc.NewClient(gateway.target, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(1<<20))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		stream, err := speechv1.NewSynthesisServiceClient(conn).SynthesizeStream(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		call := accept(b, gateway.synthesis)
		b.ReportAllocs()
		b.ResetTimer()
		go send(call, b.N)
		for range b.N {
			if _, err := stream.Recv(); err != nil && !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		}
	})
}
