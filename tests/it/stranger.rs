//! Somebody without our code publishes a command and reads what became of it: kcat, fastavro and the schema files are enough.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use connector_tests::root;
use serde_json::{Value, json};

const SEND_COMMANDS: &str = "whatsapp.send.commands.v1";
const EVENTS: &str = "whatsapp.conversation.events.v1";

pub(crate) fn checked(mut command: Command, input: &[u8]) -> Vec<u8> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}; `make test` installs kcat, python3 and python3-venv"));
    child.stdin.take().expect("stdin").write_all(input).expect("input is taken");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{name} failed");
    output.stdout
}

fn python() -> PathBuf {
    python_with("stranger-venv", "fastavro==1.13.0")
}

/// A Python with a package, made once per target folder.
pub(crate) fn python_with(name: &str, package: &str) -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = venv.join("bin/python");
    if !venv.join("ready").exists() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        checked(make, b"");
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]);
        checked(install, b"");
        std::fs::write(venv.join("ready"), "").expect("a stamp");
    }
    python
}

fn stranger(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(python());
    command.arg(root().join("tests/it/stranger.py")).arg(root().join("schemas")).args(arguments);
    checked(command, input)
}

/// Publishes a free-form text to a stranger of the organization; the answer must be a refusal that names its reason.
pub(crate) fn publishes_a_command_and_reads_its_outcome(kafka: &str, phone_number_id: &str) {
    let id = uuid::Uuid::now_v7().to_string();
    let command = json!({
        "command_id": id,
        "organization_id": "acme",
        "user_id": "nobody",
        "phone_number_id": phone_number_id,
        "recipient": {"conversation_id": null, "address": {"phone": "491705550199", "bsuid": null}},
        "content": {"kind": "text", "text": "hello", "preview_url": false, "template": null, "reply_to": null},
        "policy": "at_most_once",
        "purpose": "conversation",
        "issued_at": 1_700_000_000_000_i64,
        "not_after": null,
    });
    let record = stranger(&["encode"], command.to_string().as_bytes());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), record).expect("the record is written");
    let mut publish = Command::new("kcat");
    publish.args(["-P", "-b", kafka, "-t", SEND_COMMANDS, "-k", "any-key"]).arg(file.path());
    checked(publish, b"");

    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let mut read = Command::new("kcat");
        read.args(["-C", "-b", kafka, "-t", EVENTS, "-e", "-q", "-X", "isolation.level=read_committed", "-f", "%R%s"]);
        let outcome = stranger(&["outcome", &id], &checked(read, b""));
        let lines = String::from_utf8_lossy(&outcome).into_owned();
        if let Some(line) = lines.lines().next() {
            let event: Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(lines.lines().count(), 1, "one outcome: {lines}");
            assert_eq!(event["type"], "MessageRejected");
            assert_eq!(event["data"]["reason"], "not_enabled");
            assert!(!event["data"]["remedy"].as_str().unwrap_or_default().is_empty());
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no outcome of the command in the log");
    }
}
