//! Records as earlier builds wrote them: one file per schema version ever released, never changed once it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::samples::{Style, current, from_record, sample, to_record};

/// The golden records: subject and fingerprint to bytes.
pub(crate) fn load() -> BTreeMap<(String, String), Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(folder()).expect("the folder is there") {
        let folder = folder.expect("readable").path();
        for file in fs::read_dir(&folder).expect("readable") {
            let file = file.expect("readable").path();
            let name = |path: &Path| path.file_stem().and_then(|n| n.to_str()).expect("plain names").to_owned();
            let stem = name(&file);
            let (subject, fingerprint) = stem.rsplit_once('-').expect("<name>-<fingerprint>.hex");
            let text = fs::read_to_string(&file).expect("readable");
            let bytes = hex::decode(text.trim()).expect("hexadecimal");
            found.insert((format!("{}/{subject}", name(&folder)), fingerprint.to_owned()), bytes);
        }
    }
    found
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn records_of_every_released_schema_are_still_read_and_written_the_same() {
    if env::var_os("WRITE_GOLDEN").is_some() {
        write_missing();
    }
    let golden = load();
    for ((subject, fingerprint), record) in &golden {
        from_record(subject, record).unwrap_or_else(|e| panic!("golden record {subject}-{fingerprint}: {e}"));
    }
    for file in current() {
        let key = (file.subject.to_owned(), file.fingerprint.to_string());
        let record = golden.get(&key).unwrap_or_else(|| {
            panic!("no golden record of {}-{}: run this test with WRITE_GOLDEN=1 and commit it", key.0, key.1)
        });
        let value = sample(&file.schema, Style::Full(0));
        assert_eq!(from_record(file.subject, record).as_ref(), Ok(&value), "{}", file.subject);
        assert_eq!(
            hex::encode(to_record(file.subject, &value).expect("encodes")),
            hex::encode(record),
            "{}",
            file.subject
        );
    }
}

fn write_missing() {
    for file in current() {
        let path = folder().join(format!("{}-{}.hex", file.subject, file.fingerprint));
        if !path.exists() {
            let record = to_record(file.subject, &sample(&file.schema, Style::Full(0))).expect("encodes");
            fs::create_dir_all(path.parent().expect("has a folder")).expect("folder");
            fs::write(path, hex::encode(record) + "\n").expect("written");
        }
    }
}
