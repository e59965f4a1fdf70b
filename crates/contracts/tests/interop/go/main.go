// Command readlog reads records of the connector with hamba/avro: readlog <schemas folder> <file>...
//
// Each file holds one record, as bytes or as hexadecimal text (.hex). Prints one line of JSON per record. The whole method:
// look the fingerprint of the record up among the fingerprints of the .avsc files, read the rest with the file that has it.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/pkg/crc64"
)

// load returns every schema by its fingerprint, in the byte order of the frame.
func load(folder string) (map[string]avro.NamedSchema, error) {
	schemas := map[string]avro.NamedSchema{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "shared" {
			return filepath.SkipDir // stands inlined in the others
		}
		if !strings.HasSuffix(path, ".avsc") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// A cache of its own: files repeat the names of shared types.
		schema, err := avro.ParseBytesWithCache(text, "", &avro.SchemaCache{})
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		schemas[fingerprint(schema)] = schema.(avro.NamedSchema)
		return nil
	})
	return schemas, err
}

// fingerprint is the CRC-64-AVRO of the canonical form. The library's canonical form keeps logical types, which the
// specification strips, so they go first.
func fingerprint(schema avro.Schema) string {
	form := strings.ReplaceAll(schema.String(), `{"type":"long","logicalType":"timestamp-millis"}`, `"long"`)
	crc := crc64.New()
	crc.Write([]byte(form))
	return string(binary.LittleEndian.AppendUint64(nil, crc.Sum64()))
}

type line struct {
	File   string `json:"file"`
	Schema string `json:"schema"`
	Value  any    `json:"value"`
}

func decode(record []byte, schemas map[string]avro.NamedSchema) (string, any, error) {
	if len(record) < 10 || record[0] != 0xC3 || record[1] != 0x01 {
		return "", nil, errors.New("not in Avro single-object encoding")
	}
	schema, known := schemas[string(record[2:10])]
	if !known {
		return "", nil, errors.New("unknown schema: take the newer schema files")
	}
	var value any
	body := bytes.NewReader(record[10:])
	if err := avro.NewDecoderForSchema(schema, body).Decode(&value); err != nil {
		return "", nil, err
	}
	return schema.FullName(), plain(value), nil
}

// plain turns moments into milliseconds since 1970 and takes the type's name off a union, as the other readers print them.
func plain(value any) any {
	switch value := value.(type) {
	case time.Time:
		return value.UnixMilli()
	case []any:
		for i := range value {
			value[i] = plain(value[i])
		}
		return value
	case map[string]any:
		for name, inner := range value {
			if len(value) == 1 && isTypeName(name) {
				return plain(inner)
			}
			value[name] = plain(inner)
		}
		return value
	default:
		return value
	}
}

// isTypeName tells the branch of a union from the field of a record, which has neither of these names.
func isTypeName(name string) bool {
	return name == "string" || name == "long" || strings.HasPrefix(name, "long.") || strings.Contains(name, ".v1.")
}

func run(args []string) error {
	schemas, err := load(args[0])
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, name := range args[1:] {
		record, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".hex") {
			if record, err = hex.DecodeString(strings.TrimSpace(string(record))); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		schema, value, err := decode(record, schemas)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := out.Encode(line{name, schema, value}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: readlog <schemas folder> <file>...")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
