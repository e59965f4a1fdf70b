//! `connectorctl import`: entries of the directory, and consent given elsewhere, from files. Nothing is published when a line is bad,
//! unless that was asked for; what is wrong is told by line and field.

mod consent;
mod directory;
mod known;
mod rows;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use connector_contracts::Topics;
use connector_domain::form::Formed;
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber};
use connector_ports::clock::SystemClock;
use connector_ports::ids::RandomIds;
use connector_ports::log::{Append, LogError};
use connector_ports::{Clock, Log, Transactor};
use connector_runtime::assignment::transactional_id;

use self::known::Known;
use self::rows::{Format, Row};
use crate::{Failed, open};

/// Records in one request to the broker.
const AT_ONCE: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Numbers, users and contacts. Fields: kind (number, user, contact), organization, phone_number_id, waba_id, user, enabled, contact,
    /// phone, bsuid, name, delete (true takes the entry away).
    Directory(Options),
    /// Consent that contacts gave elsewhere, each with its proof. Fields: organization, user (who imports it), phone_number_id (default:
    /// the user's), phone, bsuid or conversation, proof, action (import, revoke), id (a UUID under which the outcome stands in the log).
    Consent(Options),
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file; `-` is standard input.
    file: PathBuf,
    /// How it is written. Without it, the name of the file tells: .csv, .jsonl, .ndjson.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The organization of lines that name none.
    #[arg(long)]
    organization: Option<String>,
    /// Check everything, also against the directory, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Publish the good lines although others are bad.
    #[arg(long)]
    skip_bad_lines: bool,
}

/// What kind of entries a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Directory,
    Consent,
}

pub(crate) async fn run(action: &Action, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    let (what, options) = match action {
        Action::Directory(options) => (What::Directory, options),
        Action::Consent(options) => (What::Consent, options),
    };
    let format = options.format.or_else(|| by_name(&options.file)).ok_or_else(|| {
        Failed::Usage("the name of the file does not say how it is written; name --format csv or jsonl".to_owned())
    })?;
    let text = text(&options.file).map_err(Failed::File)?;
    import(open::log()?.as_ref(), &open::topics()?, what, format, &text, options, out).await
}

fn by_name(file: &Path) -> Option<Format> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}

fn text(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

async fn import(
    log: &dyn Log,
    topics: &Topics,
    what: What,
    format: Format,
    text: &str,
    options: &Options,
    out: &mut (dyn Write + Send),
) -> Result<bool, Failed> {
    let default = options.organization.as_deref();
    let (mut rows, records);
    let mut assigning = BTreeMap::new();
    if what == What::Directory && !options.dry_run {
        // Before anything is looked up: what others committed is seen then, and what they have not is fenced.
        for key in directory::numbers(&rows::read(format, text, directory::FIELDS)) {
            let transactor = log.transactor(&transactional_id(topics, &key)).await?;
            assigning.insert(key, transactor);
        }
    }
    let mut known = Known::read(log, topics).await?;
    match what {
        What::Directory => {
            rows = rows::read(format, text, directory::FIELDS);
            records = directory::records(&mut rows, &mut known, default, topics)?;
        }
        What::Consent => {
            rows = rows::read(format, text, consent::FIELDS);
            let now = SystemClock.now();
            records = consent::records(&mut rows, &known, default, topics, &RandomIds, now)?;
        }
    }
    if rows.is_empty() {
        return Err(Failed::Usage("the file has no entries".to_owned()));
    }
    let mut problems: Vec<_> = rows.iter().flat_map(|row| &row.problems).collect();
    problems.sort();
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let bad = rows.iter().filter(|row| !row.problems.is_empty()).count();
    let total = rows.len();
    writeln!(out, "{total} entries read, {} good, {bad} bad", total - bad)?;
    if options.dry_run {
        writeln!(out, "a dry run: nothing was published")?;
    } else if bad > 0 && !options.skip_bad_lines {
        writeln!(out, "nothing was published: correct the lines, or publish the others with --skip-bad-lines")?;
    } else {
        let (numbers, others): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| key(record).is_some_and(|key| assigning.contains_key(key)));
        let (assigned, contended) = assign(&mut assigning, numbers).await?;
        if contended > 0 {
            writeln!(out, "{contended} numbers are being assigned by somebody else, {assigned} were published")?;
            writeln!(out, "nothing else was published: look who has these numbers now, and import again")?;
            return Ok(false);
        }
        publish(log, assigned, others, out).await?;
    }
    Ok(bad == 0)
}

fn key(record: &Append) -> Option<&str> {
    record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
}

/// Writes the entries of numbers, each in its own transaction: of two who assign a number at once one wins and the other is told. The answer
/// is how many were written, and how many somebody else assigned meanwhile.
async fn assign(
    assigning: &mut BTreeMap<String, Box<dyn Transactor>>,
    records: Vec<Append>,
) -> Result<(usize, usize), Failed> {
    let (mut done, mut contended) = (0, 0);
    for record in records {
        let Some(transactor) = key(&record).and_then(|key| assigning.get_mut(key)) else { continue };
        let committed = match transactor.append(vec![record]).await {
            Ok(_) => transactor.commit(None).await,
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => done += 1,
            Err(LogError::Fenced { .. }) => contended += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((done, contended))
}

/// Publishes in order. Doing it again is harmless: an entry replaces itself, and consent that is there already is refused as not needed.
async fn publish(
    log: &dyn Log,
    before: usize,
    records: Vec<Append>,
    out: &mut (dyn Write + Send),
) -> Result<(), Failed> {
    let (total, mut done) = (before + records.len(), before);
    let appender = log.appender().await?;
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let some: Vec<_> = records.by_ref().take(AT_ONCE).collect();
        let count = some.len();
        if let Err(error) = appender.append(some).await {
            writeln!(out, "published {done} of {total}, perhaps some more; repeating the import is harmless")?;
            return Err(error.into());
        }
        done += count;
    }
    writeln!(out, "published {done}")?;
    Ok(())
}

/// The organization of a line.
fn organization(row: &mut Row, default: Option<&str>) -> Option<String> {
    match (row.get("organization"), default) {
        (None, Some(default)) => Some(default.to_owned()),
        _ => row.id("organization"),
    }
}

/// How WhatsApp addresses the person of a line: by phone, by business-scoped user id, or both.
fn address(row: &mut Row) -> Address {
    let bsuid = row.get("bsuid").map(|id| Bsuid(id.to_owned()));
    if bsuid.as_ref().is_some_and(|bsuid| !bsuid.is_formed()) {
        row.wrong("bsuid", "is no business-scoped user id, which begins with a country and a dot");
        return Address::default();
    }
    let phone = match row.get("phone").map(PhoneNumber::parse) {
        Some(Err(error)) => {
            row.wrong("phone", &error.to_string());
            return Address::default();
        }
        Some(Ok(phone)) => Some(phone),
        None => None,
    };
    if phone.is_none() && bsuid.is_none() {
        row.wrong("phone", "is missing, and bsuid as well");
    }
    Address { phone, bsuid }
}

#[cfg(test)]
mod tests;
