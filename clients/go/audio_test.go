package wavegate

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

func TestWAVHeader(t *testing.T) {
	for _, c := range []struct {
		encoding AudioEncoding
		tag      uint16
		header   int
	}{{Linear16, 1, 44}, {Linear32, 1, 44}, {Alaw, 6, 58}, {Mulaw, 7, 58}} {
		format := &AudioFormat{Encoding: c.encoding, SampleRateHertz: 8000}
		var file bytes.Buffer
		if err := WriteWAVHeader(&file, format, 800); err != nil {
			t.Fatal(err)
		}
		header := file.Bytes()
		if len(header) != c.header || string(header[:4]) != "RIFF" || binary.LittleEndian.Uint16(header[20:]) != c.tag ||
			binary.LittleEndian.Uint32(header[4:]) != uint32(c.header-8+800) ||
			binary.LittleEndian.Uint32(header[len(header)-4:]) != 800 {
			t.Errorf("%v has the header % x", c.encoding, header)
		}
		file.Reset()
		if err := WriteWAVHeader(&file, format, -1); err != nil || binary.LittleEndian.Uint32(file.Bytes()[4:]) != 0xFFFFFFFF {
			t.Errorf("a stream of unknown length has the header % x", file.Bytes())
		}
	}
	if err := WriteWAVHeader(&bytes.Buffer{}, &AudioFormat{Encoding: MP3}, 0); err == nil {
		t.Error("MP3 has a header")
	}
}

func TestOpusDuration(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		want   time.Duration
	}{
		{[]byte{0x08}, 20 * time.Millisecond},       // SILK, one frame
		{[]byte{0x19}, 120 * time.Millisecond},      // SILK, two frames of 60 ms
		{[]byte{0x60}, 10 * time.Millisecond},       // hybrid
		{[]byte{0xf8}, 20 * time.Millisecond},       // CELT
		{[]byte{0xe3, 0x04}, 10 * time.Millisecond}, // CELT, four frames of 2.5 ms
		{[]byte{0xe3}, 0},                           // cut off
		{nil, 0},
	} {
		if got := time.Duration(opusSamples(c.packet)) * time.Second / opusSamplesPerSecond; got != c.want {
			t.Errorf("% x lasts %v, not %v", c.packet, got, c.want)
		}
	}
}

func TestAudioPieces(t *testing.T) {
	format := &AudioFormat{Encoding: Linear16}
	var sizes []int
	for piece := range audioPieces(make([]byte, 10), format, 5) {
		sizes = append(sizes, len(piece))
	}
	if len(sizes) != 3 || sizes[0] != 4 || sizes[2] != 2 {
		t.Errorf("the pieces are %v", sizes)
	}
	for piece := range audioPieces(make([]byte, 10), &AudioFormat{Encoding: Opus}, 5) {
		if len(piece) != 10 {
			t.Error("a packet was cut")
		}
	}
	for range audioPieces(nil, format, 5) {
		t.Error("nothing has a piece")
	}
}

func TestPacer(t *testing.T) {
	p := pacer{bytesPerSecond: 32_000}
	now := time.Unix(0, 0)
	for _, c := range []struct {
		at   time.Duration
		want time.Duration
	}{
		{0, 100 * time.Millisecond},
		{0, 200 * time.Millisecond}, // there at once
		{200 * time.Millisecond, 100 * time.Millisecond},
		{350 * time.Millisecond, 50 * time.Millisecond}, // a late timer is made up for
		{2 * time.Second, 0},                            // a pause is not
	} {
		if got := p.delay(3200, now.Add(c.at)); got != c.want {
			t.Errorf("at %v it waits %v, not %v", c.at, got, c.want)
		}
	}
}

func TestWholeCharacters(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "abc": 3, "ü": 2, "a\xc3": 1, "a\xe2\x82": 1, "\xf0\x9f\x98": 0, "\xf0\x9f\x98\x80": 4, "\xff": 1, "a\x80": 2,
	} {
		if got := wholeCharacters(text); got != want {
			t.Errorf("%q has %d whole bytes, not %d", text, got, want)
		}
	}
}
