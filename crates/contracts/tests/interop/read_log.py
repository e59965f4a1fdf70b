#!/usr/bin/env python3
"""Reads records of the connector with fastavro: python3 read_log.py <schemas folder> [file ...] (or hex lines on stdin).

Each file holds one record, as bytes or as hexadecimal text (.hex). Prints one line of JSON per record. The whole method:
look the fingerprint of the record up among the fingerprints of the .avsc files, read the rest with the file that has it.
"""

import datetime
import io
import json
import pathlib
import sys

from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form


def load(folder: pathlib.Path) -> dict[bytes, dict]:
    """Every schema by its fingerprint, in the byte order of the frame."""
    schemas = {}
    for file in folder.rglob("*.avsc"):
        if file.relative_to(folder).parts[0] == "shared":
            continue  # stands inlined in the others
        schema = json.loads(file.read_text(encoding="utf-8"))
        crc = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
        schemas[bytes.fromhex(crc)] = parse_schema(schema)
    return schemas


def decode(record: bytes, schemas: dict[bytes, dict]) -> dict:
    """One record in single-object encoding."""
    if record[:2] != b"\xc3\x01":
        raise ValueError("not in Avro single-object encoding")
    schema = schemas.get(record[2:10])
    if schema is None:
        raise ValueError(f"unknown schema {record[9:1:-1].hex()}: take the newer schema files")
    body = io.BytesIO(record[10:])
    value = schemaless_reader(body, schema)
    if body.read(1):
        raise ValueError("bytes after the end of the record")
    return {"schema": schema["name"], "value": value}


def plain(value):
    """Moments as milliseconds since 1970, the way the wire has them."""
    if isinstance(value, datetime.datetime):
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return (value - epoch) // datetime.timedelta(milliseconds=1)
    raise TypeError(type(value))


def main() -> None:
    schemas = load(pathlib.Path(sys.argv[1]))
    if len(sys.argv) > 2:
        for name in sys.argv[2:]:
            data = pathlib.Path(name).read_bytes()
            record = bytes.fromhex(data.decode()) if name.endswith(".hex") else data
            print(json.dumps({"file": name} | decode(record, schemas), default=plain))
    else:
        for line in sys.stdin:
            print(json.dumps(decode(bytes.fromhex(line), schemas), default=plain))


if __name__ == "__main__":
    main()
