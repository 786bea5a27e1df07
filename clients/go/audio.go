package wavegate

import (
	"encoding/binary"
	"io"
	"iter"
	"time"

	speechv1 "example.com/wavegate/clients/go/gen/wavegate/speech/v1"
)

// sampleBytes is the size of a sample of a raw format; 0 for a compressed one.
func sampleBytes(format *AudioFormat) int {
	switch format.GetEncoding() {
	case speechv1.AudioEncoding_AUDIO_ENCODING_UNSPECIFIED, Linear16:
		return 2
	case Linear32:
		return 4
	case Mulaw, Alaw:
		return 1
	}
	return 0
}

// bytesPerSecond is the rate of a raw format; 0 for a compressed one, which has none.
func bytesPerSecond(format *AudioFormat) int {
	return sampleBytes(format) * int(format.GetSampleRateHertz())
}

// opusSamplesPerSecond is the clock of Opus, at every rate of its input.
const opusSamplesPerSecond = 48_000

// opusSamples is the playing time of an Opus packet in samples at 48 kHz, as its first two bytes tell it (RFC 6716, 3.1 and
// 3.2).
func opusSamples(packet []byte) int64 {
	if len(packet) == 0 {
		return 0
	}
	config := packet[0] >> 3
	var frame int64
	switch {
	case config < 12: // SILK
		frame = []int64{480, 960, 1920, 2880}[config%4]
	case config < 16: // hybrid
		frame = []int64{480, 960}[config%2]
	default: // CELT
		frame = []int64{120, 240, 480, 960}[config%4]
	}
	switch packet[0] & 3 {
	case 0:
		return frame
	case 1, 2:
		return 2 * frame
	}
	if len(packet) < 2 {
		return 0
	}
	return frame * int64(packet[1]&63)
}

// audioPieces cuts audio in pieces of at most limit bytes, between samples; Opus packets stay whole.
func audioPieces(content []byte, format *AudioFormat, limit int) iter.Seq[[]byte] {
	width := max(sampleBytes(format), 1)
	step := max(limit-limit%width, width)
	if format.GetEncoding() == Opus {
		step = max(len(content), 1)
	}
	return func(yield func([]byte) bool) {
		for len(content) > 0 {
			n := min(step, len(content))
			if !yield(content[:n]) {
				return
			}
			content = content[n:]
		}
	}
}

// catchUp is what a pacer makes up for of a source that was late: the jitter of timers, not a pause.
const catchUp = 100 * time.Millisecond

// pacer says how long to hold audio back, so that it leaves no faster than it was spoken. A piece is due when its last
// sample would have been recorded. The clock starts with the first piece. A source that was late is not made up for: the
// time that it lost stays lost, as with a microphone.
type pacer struct {
	bytesPerSecond float64
	due            time.Time
}

func (p *pacer) delay(length int, now time.Time) time.Duration {
	start := now
	if !p.due.IsZero() {
		start = p.due
		if earliest := now.Add(-catchUp); start.Before(earliest) {
			start = earliest
		}
	}
	p.due = start.Add(time.Duration(float64(length) / p.bytesPerSecond * float64(time.Second)))
	return p.due.Sub(now)
}

// WriteWAVHeader writes the RIFF header of one channel of raw audio (LINEAR16, LINEAR32, MULAW or ALAW). A negative number
// of bytes is for a stream whose length is not known yet: readers take what follows to its end. Gives an error of
// KindArgument for a compressed format.
func WriteWAVHeader(w io.Writer, format *AudioFormat, dataBytes int64) error {
	width := sampleBytes(format)
	if width == 0 {
		return argumentError("%v is no raw encoding, and so has no place in a WAV file", format.GetEncoding())
	}
	const unknown = 0xFFFFFFFF // what readers take for "until the end"
	tag := uint16(1)
	switch format.GetEncoding() {
	case Alaw:
		tag = 6
	case Mulaw:
		tag = 7
	}
	form := binary.LittleEndian.AppendUint16(nil, tag)
	form = binary.LittleEndian.AppendUint16(form, 1)
	form = binary.LittleEndian.AppendUint32(form, uint32(format.GetSampleRateHertz()))
	form = binary.LittleEndian.AppendUint32(form, uint32(bytesPerSecond(format)))
	form = binary.LittleEndian.AppendUint16(form, uint16(width))
	form = binary.LittleEndian.AppendUint16(form, uint16(width*8))
	length, samples := uint32(unknown), uint32(unknown)
	if dataBytes >= 0 && dataBytes < unknown-100 {
		length, samples = uint32(dataBytes), uint32(dataBytes/int64(width))
	}
	var fact []byte
	if tag != 1 { // any format but PCM has an extension and a fact chunk
		form = binary.LittleEndian.AppendUint16(form, 0)
		fact = binary.LittleEndian.AppendUint32(append(fact, "fact"...), 4)
		fact = binary.LittleEndian.AppendUint32(fact, samples)
	}
	body := binary.LittleEndian.AppendUint32([]byte("WAVEfmt "), uint32(len(form)))
	body = append(append(body, form...), fact...)
	size := uint32(unknown)
	if length != unknown {
		size = uint32(len(body)) + 8 + length + length%2
	}
	header := binary.LittleEndian.AppendUint32([]byte("RIFF"), size)
	header = append(append(header, body...), "data"...)
	header = binary.LittleEndian.AppendUint32(header, length)
	_, err := w.Write(header)
	return err
}
