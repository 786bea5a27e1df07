// Package wav reads and writes WAV files, as far as the examples need it.
package wav

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	wavegate "example.com/wavegate/clients/go"
)

// Write writes samples as a file.
func Write(path string, format *wavegate.AudioFormat, samples []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	err = wavegate.WriteWAVHeader(file, format, int64(len(samples)))
	if err == nil {
		_, err = file.Write(samples)
	}
	return errors.Join(err, file.Close())
}

// Open reads the header of a file of 16-bit samples in one channel; what the reader gives then are the samples.
func Open(file io.Reader) (*wavegate.AudioFormat, io.Reader, error) {
	var riff [12]byte
	if _, err := io.ReadFull(file, riff[:]); err != nil || string(riff[:4]) != "RIFF" || string(riff[8:]) != "WAVE" {
		return nil, nil, errors.New("this is no WAV file")
	}
	format := &wavegate.AudioFormat{Encoding: wavegate.Linear16, ChannelCount: 1}
	for {
		var chunk [8]byte
		if _, err := io.ReadFull(file, chunk[:]); err != nil {
			return nil, nil, errors.New("the WAV file holds no audio")
		}
		size := int64(binary.LittleEndian.Uint32(chunk[4:]))
		switch string(chunk[:4]) {
		case "data":
			if size == 0xFFFFFFFF { // its writer did not know the length
				return format, file, nil
			}
			return format, io.LimitReader(file, size), nil
		case "fmt ":
			form := make([]byte, size)
			if _, err := io.ReadFull(file, form); err != nil || size < 16 {
				return nil, nil, errors.New("the WAV file is cut off")
			}
			tag, channels, bits := binary.LittleEndian.Uint16(form), binary.LittleEndian.Uint16(form[2:]), binary.LittleEndian.Uint16(form[14:])
			if (tag != 1 && tag != 0xFFFE) || channels != 1 || bits != 16 {
				return nil, nil, fmt.Errorf("16-bit samples in one channel are wanted, not %d bits in %d", bits, channels)
			}
			format.SampleRateHertz = int32(binary.LittleEndian.Uint32(form[4:]))
		default:
			if _, err := io.CopyN(io.Discard, file, size+size%2); err != nil {
				return nil, nil, errors.New("the WAV file is cut off")
			}
		}
	}
}
