//! Stock Avro libraries of other languages read the golden records, knowing nothing but the `schemas/` folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::golden;
use crate::samples::from_record;

fn crate_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn schemas() -> PathBuf {
    crate_path("../../schemas").canonicalize().expect("the folder is there")
}

fn run(command: &mut Command, missing: &str) -> String {
    let output =
        command.output().unwrap_or_else(|e| panic!("{:?} does not start ({e}): {missing}", command.get_program()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} failed: {stderr}\n({missing})", command.get_program());
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}

/// The golden records as files, and what Rust reads in each.
fn expected() -> BTreeMap<String, (String, Value)> {
    golden::load()
        .into_iter()
        .map(|((subject, fingerprint), record)| {
            let file = golden::folder().join(format!("{subject}-{fingerprint}.hex"));
            let (folder, name) = subject.split_once('/').expect("a folder and a name");
            let schema = format!("com.multiline.whatsapp.{folder}.v1.{name}");
            let value = from_record(&subject, &record).expect("decodes");
            (file.to_string_lossy().into_owned(), (schema, value))
        })
        .collect()
}

/// A library shows an older record as it was written; Rust adds the fields that came later, with the defaults of the newest schema.
fn as_written(ours: &mut Value, theirs: &Value, newest: &Value) {
    let (Some(ours), Some(theirs)) = (ours.as_object_mut(), theirs.as_object()) else { return };
    for field in newest["fields"].as_array().into_iter().flatten() {
        let name = field["name"].as_str().expect("a name");
        match theirs.get(name) {
            Some(theirs) => as_written(ours.get_mut(name).expect("a field"), theirs, &field["type"]),
            None if ours.get(name) == field.get("default") => drop(ours.remove(name)),
            None => {}
        }
    }
}

fn assert_reads_the_same(output: &str) {
    let mut expected = expected();
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let file = line["file"].as_str().expect("the file's name");
        let (schema, mut value) = expected.remove(file).expect("a file that was asked for, once");
        let subject = schema.trim_start_matches("com.multiline.whatsapp.").replace(".v1.", "/");
        let newest = fs::read_to_string(schemas().join(format!("{subject}.avsc"))).expect("the newest schema");
        as_written(&mut value, &line["value"], &serde_json::from_str(&newest).expect("a schema"));
        assert_eq!(line["schema"], schema.as_str(), "{file}");
        assert_eq!(line["value"], value, "{file}");
    }
    assert!(expected.is_empty(), "not read: {:?}", expected.keys());
}

#[test]
fn python_reads_every_golden_record_like_rust_does() {
    let missing = "install the packages python3 and python3-venv (Debian), and let pip reach its package index once";
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-venv");
    let python = venv.join("bin/python");
    let requirements = crate_path("tests/interop/requirements.txt");
    // Written last, so that an installation that was interrupted is done again.
    let stamp = venv.join("installed.txt");
    let wanted = fs::read_to_string(&requirements).expect("readable");
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv), missing);
        run(
            Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements),
            missing,
        );
        fs::write(&stamp, &wanted).expect("written");
    }
    let script = crate_path("tests/interop/read_log.py");
    assert_reads_the_same(&run(Command::new(&python).arg(script).arg(schemas()).args(expected().keys()), missing));
}

#[test]
fn go_reads_every_golden_record_like_rust_does() {
    let missing = "install Go 1.24 or newer, and let it reach a module proxy once";
    let mut go = Command::new("go");
    go.args(["run", "."]).arg(schemas()).args(expected().keys()).current_dir(crate_path("tests/interop/go"));
    assert_reads_the_same(&run(&mut go, missing));
}
