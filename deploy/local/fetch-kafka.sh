#!/bin/sh
# Fetches Apache Kafka (the jars named in pom.xml) into <repo>/.local/kafka/lib. Does nothing when they are there.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
home=$(CDPATH='' cd -- "$here/../.." && pwd)/.local/kafka
# The stamp holds the pom the jars came from, so that a new version is fetched anew.
stamp="$home/lib/.pom.xml"

complete() { [ -f "$stamp" ] && cmp -s "$here/pom.xml" "$stamp"; }

complete && exit 0

for tool in java mvn; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "fetch-kafka: $tool is missing. Install a Java runtime (17 or newer) and Maven, for example:" >&2
        echo "    apt-get install --yes openjdk-17-jre-headless maven" >&2
        exit 1
    fi
done

mkdir -p "$home"
# Two test binaries may come here at the same moment; the second one waits for the first.
if command -v flock >/dev/null 2>&1; then
    exec 9>"$home/.lock"
    flock 9
    complete && exit 0
fi

echo "fetch-kafka: fetching Apache Kafka into $home/lib (44 MB, once)" >&2
part="$home/lib.part"
rm -rf "$part"
if ! mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$part" >&2; then
    echo "fetch-kafka: Maven could not fetch the jars, see above" >&2
    exit 1
fi
cp "$here/pom.xml" "$part/.pom.xml"
rm -rf "$home/lib"
mv "$part" "$home/lib"
