#!/usr/bin/env python3
"""What somebody who does not know the connector needs: kcat, fastavro and the schema files.

    stranger.py <schemas folder> encode            one SendMessage as JSON on stdin, its record on stdout (for kcat -P)
    stranger.py <schemas folder> outcome <id>      records on stdin as `kcat -C -f '%R%s'` prints them; events of that command
"""

import io
import json
import pathlib
import struct
import sys

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form


def frame(schema: dict) -> bytes:
    """What stands in front of a record in single-object encoding."""
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def encode(folder: pathlib.Path) -> None:
    schema = json.loads((folder / "commands" / "SendMessage.avsc").read_text(encoding="utf-8"))
    body = io.BytesIO()
    schemaless_writer(body, parse_schema(schema), json.load(sys.stdin))
    sys.stdout.buffer.write(frame(schema) + body.getvalue())


def outcome(folder: pathlib.Path, command: str) -> None:
    schemas = {}
    for file in (folder / "events").glob("*.avsc"):
        schema = json.loads(file.read_text(encoding="utf-8"))
        schemas[frame(schema)] = parse_schema(schema)
    stream = sys.stdin.buffer
    while length := stream.read(4):
        record = stream.read(struct.unpack(">i", length)[0])
        event = schemaless_reader(io.BytesIO(record[10:]), schemas[record[:10]])
        if event["envelope"]["command_id"] == command:
            data = {name: value for name, value in event["data"].items() if isinstance(value, (str, int, type(None)))}
            print(json.dumps({"type": event["envelope"]["event_type"], "data": data}))


def main() -> None:
    folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
    encode(folder) if what == "encode" else outcome(folder, sys.argv[3])


if __name__ == "__main__":
    main()
