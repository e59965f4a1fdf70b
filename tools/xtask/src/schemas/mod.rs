//! The `schemas/` folder: compatible with its past, shared types the same everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use apache_avro::Schema;
use connector_contracts::schema::Fingerprint;

use crate::{Failure, conclude, output, read, save};

mod compatibility;
mod format;
mod shared;

pub use compatibility::incompatibilities;
pub use shared::inline;

/// Subject (path without extension) to text.
pub type Files = BTreeMap<String, String>;

/// The folder's files, history included.
///
/// # Errors
/// When one cannot be read.
pub fn load(folder: &Path) -> Result<Files, Failure> {
    fn walk(folder: &Path, prefix: &str, files: &mut Files) -> Result<(), Failure> {
        for entry in std::fs::read_dir(folder).map_err(|e| Failure::file(folder, e))? {
            let path = entry.map_err(|e| Failure::file(folder, e))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                walk(&path, &format!("{prefix}{name}/"), files)?;
            } else if let Some(stem) = name.strip_suffix(".avsc") {
                files.insert(format!("{prefix}{stem}"), read(&path)?);
            }
        }
        Ok(())
    }
    let mut files = Files::new();
    walk(folder, "", &mut files)?;
    Ok(files)
}

/// The folder as it is elsewhere: in another folder, or in the repository at a git ref. Empty when the ref has none.
fn load_from(root: &Path, against: &str) -> Result<Files, Failure> {
    let folder = Path::new(against);
    if folder.is_dir() {
        return load(folder);
    }
    let mut files = Files::new();
    for path in output(root, "git", &["ls-tree", "-r", "--name-only", against, "--", "schemas/"])?.lines() {
        if let Some(subject) = path.strip_prefix("schemas/").and_then(|p| p.strip_suffix(".avsc")) {
            files.insert(subject.to_owned(), output(root, "git", &["show", &format!("{against}:{path}")])?);
        }
    }
    Ok(files)
}

fn parse(subject: &str, text: &str) -> Result<Schema, Failure> {
    Schema::parse_str(text).map_err(|e| Failure::broken(format!("schemas/{subject}.avsc"), e))
}

/// Not history, not shared: what records are written with.
fn is_contract(subject: &str) -> bool {
    !subject.starts_with("history/") && !subject.starts_with("shared/")
}

/// The older versions of a subject in `schemas/history/`, with their numbers.
fn history<'a>(files: &'a Files, subject: &str) -> Vec<(u32, &'a str)> {
    let prefix = format!("history/{subject}/");
    let mut versions: Vec<_> = files
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&prefix)?.parse().ok()?, text.as_str())))
        .collect();
    versions.sort_unstable();
    versions
}

/// Compares the working tree with `schemas/history/` and with `against`; the number of versions compared.
///
/// # Errors
/// Every schema that breaks the rules of `schemas/README.md`, or what is in the way of comparing.
pub fn check(root: &Path, against: &str) -> Result<usize, Failure> {
    let now = load(&root.join("schemas"))?;
    let (compared, findings) = compare(&now, &load_from(root, against)?)?;
    conclude("schemas that break the promise of schemas/README.md", findings)?;
    Ok(compared)
}

/// The number of earlier versions, and what is wrong with those of `now`.
///
/// # Errors
/// When a file is not a schema.
pub fn compare(now: &Files, before: &Files) -> Result<(usize, Vec<String>), Failure> {
    let mut findings = Vec::new();
    let mut compared = 0;

    for (path, text) in before.iter().filter(|(path, _)| path.starts_with("history/")) {
        if now.get(path) != Some(text) {
            findings.push(format!("schemas/{path}.avsc was changed or removed; records of it stand in the log"));
        }
    }
    let recorded = now.keys().filter_map(|path| Some(path.strip_prefix("history/")?.rsplit_once('/')?.0));
    let subjects: BTreeSet<&str> = now.keys().chain(before.keys()).map(String::as_str).chain(recorded).collect();
    for subject in subjects.into_iter().filter(|subject| is_contract(subject)) {
        let Some(text) = now.get(subject) else {
            findings.push(format!("schemas/{subject}.avsc was removed; records of it stand in the log"));
            continue;
        };
        let schema = parse(subject, text)?;
        let history = history(now, subject);
        let mut versions = Vec::new();
        for (number, text) in &history {
            versions.push((format!("version {number}"), parse(subject, text)?));
        }
        if let Some(text) = before.get(subject) {
            let earlier = parse(subject, text)?;
            let fingerprint = Fingerprint::of(&earlier);
            let kept = versions.iter().any(|(_, version)| Fingerprint::of(version) == fingerprint);
            if fingerprint != Fingerprint::of(&schema) && !kept {
                findings.push(format!(
                    "schemas/{subject}.avsc was changed, and records of the earlier version would be unreadable: \
                     `cargo xtask schemas record` puts it into schemas/history"
                ));
            }
            versions.push(("the earlier version".to_owned(), earlier));
        }
        compared += versions.len();
        for (name, version) in &versions {
            let wrong = incompatibilities(version, &schema);
            findings.extend(wrong.into_iter().map(|wrong| format!("schemas/{subject}.avsc and {name}: {wrong}")));
        }
    }
    Ok((compared, findings))
}

/// Puts the version of `against` into `schemas/history/` for every schema that differs from it; how many.
///
/// # Errors
/// When something cannot be read or written.
pub fn record(root: &Path, against: &str) -> Result<usize, Failure> {
    let now = load(&root.join("schemas"))?;
    let mut recorded = 0;
    for (subject, text) in load_from(root, against)?.iter().filter(|(subject, _)| is_contract(subject)) {
        let Some(current) = now.get(subject) else { continue };
        let fingerprint = Fingerprint::of(&parse(subject, text)?);
        let history = history(&now, subject);
        let mut known = vec![Fingerprint::of(&parse(subject, current)?)];
        for (_, text) in &history {
            known.push(Fingerprint::of(&parse(subject, text)?));
        }
        if !known.contains(&fingerprint) {
            let next = history.last().map_or(1, |(number, _)| number + 1);
            save(&root.join(format!("schemas/history/{subject}/{next}.avsc")), text)?;
            recorded += 1;
        }
    }
    Ok(recorded)
}

/// Copies shared types into the files that inline them and formats everything but history; the number of files that changed.
///
/// # Errors
/// With `check`, the files that are not up to date; else what is in the way.
pub fn sync(folder: &Path, check: bool) -> Result<usize, Failure> {
    let files = load(folder)?;
    let mut changed = Vec::new();
    for (subject, text) in inline(&files)? {
        if files.get(&subject) != Some(&text) {
            if !check {
                save(&folder.join(format!("{subject}.avsc")), &text)?;
            }
            changed.push(format!("schemas/{subject}.avsc"));
        }
    }
    if check {
        conclude("schemas that `cargo xtask schemas sync` would change", changed)?;
        return Ok(0);
    }
    Ok(changed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"{"type":"record","name":"Sent","namespace":"n","fields":[
        {"name":"id","type":"string"},
        {"name":"note","type":["null","string"],"default":null},
        {"name":"inner","type":["null",{"type":"record","name":"Inner","namespace":"n","fields":[
            {"name":"count","type":"int"}]}],"default":null},
        {"name":"kind","type":{"type":"enum","name":"Kind","namespace":"n","symbols":["a","unknown"],"default":"unknown"}}]}"#;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(subject, text)| ((*subject).to_owned(), (*text).to_owned())).collect()
    }

    /// What is wrong with a change that is recorded in the history.
    fn changed(from: &str, to: &str) -> Vec<String> {
        let after = BEFORE.replace(from, to);
        assert_ne!(after, BEFORE, "the change is one");
        let before = files(&[("events/Sent", BEFORE)]);
        let now = files(&[("events/Sent", &after), ("history/events/Sent/1", BEFORE)]);
        let (compared, findings) = compare(&now, &before).expect("schemas");
        assert_eq!(compared, 2);
        // The history and the commit before hold the same version; one of the two is enough here.
        findings
            .into_iter()
            .filter_map(|f| f.split_once(" and version 1: ").map(|(_, wrong)| wrong.to_owned()))
            .collect()
    }

    #[test]
    fn a_field_with_a_default_may_come_and_go() {
        let id = r#"{"name":"id","type":"string"},"#;
        assert_eq!(changed(id, &format!(r#"{id}{{"name":"new","type":"long","default":0}},"#)), [""; 0]);
        assert_eq!(changed(r#"{"name":"note","type":["null","string"],"default":null},"#, ""), [""; 0]);
    }

    #[test]
    fn a_field_without_a_default_may_not_come_and_not_go() {
        let id = r#"{"name":"id","type":"string"},"#;
        let wrong = "field `id` has no default, so it cannot be added or removed";
        assert_eq!(changed(id, ""), [format!("records written now cannot be read by earlier builds: {wrong}")]);
        let wrong = "field `new` has no default, so it cannot be added or removed";
        let added = changed(id, &format!(r#"{id}{{"name":"new","type":"long"}},"#));
        assert_eq!(added, [format!("records written before cannot be read now: {wrong}")]);
    }

    #[test]
    fn a_field_inside_another_is_named_by_its_path() {
        let before = r#"{"type":"record","name":"R","namespace":"n","fields":[{"name":"data","type":
            {"type":"record","name":"D","namespace":"n","fields":[{"name":"at","type":"long"}]}}]}"#;
        let after = before.replace("\"at\"", "\"when\"");
        let parse = |text| Schema::parse_str(text).expect("a schema");
        let findings = incompatibilities(&parse(before), &parse(&after));
        assert!(findings[0].contains("field `data.when` has no default"), "{findings:?}");
        assert!(findings[1].contains("field `data.at` has no default"), "{findings:?}");
    }

    #[test]
    fn a_type_may_not_change_even_where_avro_would_promote_it() {
        let findings = changed(r#"{"name":"id","type":"string"}"#, r#"{"name":"id","type":"long"}"#);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings.iter().all(|f| f.contains("field `id` changed its type")), "{findings:?}");
        let findings = changed(r#"["null","string"]"#, r#"["null","long"]"#);
        assert!(findings.iter().all(|f| f.contains("field `note`")) && findings.len() == 2, "{findings:?}");
        let findings = changed(r#""count","type":"int""#, r#""count","type":"long""#);
        assert!(findings.iter().all(|f| f.contains("field `inner") && f.contains("count")), "{findings:?}");
        assert_eq!(findings.len(), 1, "int may become long for readers, but not for earlier ones: {findings:?}");
    }

    #[test]
    fn an_enum_symbol_may_come_when_there_is_a_default() {
        assert_eq!(changed(r#""symbols":["a","#, r#""symbols":["a","b","#), [""; 0]);
        let findings = changed(r#""symbols":["a","unknown"],"default":"unknown""#, r#""symbols":["a","b","unknown"]"#);
        assert!(findings.iter().all(|f| f.contains("field `kind`")), "{findings:?}");
    }

    #[test]
    fn a_changed_schema_has_to_leave_its_earlier_version_in_the_history() {
        let after = BEFORE.replace("\"id\",", "\"id\",\"default\":\"\",").replace("Kind\"", "Kind\",\"aliases\":[]");
        let same = compare(&files(&[("events/Sent", &after)]), &files(&[("events/Sent", BEFORE)])).expect("schemas");
        assert_eq!(same, (1, vec![]), "defaults and aliases are not part of the fingerprint");

        let after = BEFORE.replace(r#"{"name":"note","type":["null","string"],"default":null},"#, "");
        let (_, findings) =
            compare(&files(&[("events/Sent", &after)]), &files(&[("events/Sent", BEFORE)])).expect("schemas");
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].contains("schemas/events/Sent.avsc") && findings[0].contains("schemas record"),
            "{findings:?}"
        );
    }

    #[test]
    fn neither_a_schema_nor_its_history_may_disappear() {
        let before = files(&[("events/Sent", BEFORE), ("history/events/Sent/1", BEFORE), ("shared/Kind", "{}")]);
        let (_, findings) = compare(&files(&[]), &before).expect("schemas");
        assert_eq!(
            findings,
            [
                "schemas/history/events/Sent/1.avsc was changed or removed; records of it stand in the log",
                "schemas/events/Sent.avsc was removed; records of it stand in the log",
            ]
        );
    }

    #[test]
    fn recording_and_checking_work_on_folders() {
        let old = tempfile::tempdir().expect("a folder");
        let root = tempfile::tempdir().expect("a folder");
        let against = old.path().to_string_lossy().into_owned();
        let after = BEFORE.replace(r#"{"name":"note","type":["null","string"],"default":null},"#, "");
        save(&old.path().join("events/Sent.avsc"), BEFORE).expect("written");
        save(&root.path().join("schemas/events/Sent.avsc"), &after).expect("written");

        let failure = check(root.path(), &against).expect_err("the earlier version is not kept").to_string();
        assert!(failure.contains("schemas/events/Sent.avsc"), "{failure}");
        assert_eq!(record(root.path(), &against).expect("records"), 1);
        assert_eq!(record(root.path(), &against).expect("nothing left to do"), 0);
        assert_eq!(check(root.path(), &against).expect("compatible"), 2);
    }

    #[test]
    fn a_shared_type_is_written_out_once_per_file() {
        let shared = r#"{"type":"enum","name":"Kind","namespace":"n","symbols":["a","b"],"default":"a"}"#;
        let stale = r#"{"type":"enum","name":"Kind","namespace":"n","symbols":["a"],"default":"a"}"#;
        let user = format!(
            r#"{{"type":"record","name":"R","namespace":"n","fields":[
                {{"name":"x","type":["null",{stale}],"default":null}},{{"name":"y","type":{stale}}}]}}"#
        );
        let out = inline(&files(&[("shared/Kind", shared), ("events/R", &user)])).expect("JSON");
        let schema: serde_json::Value = serde_json::from_str(&out["events/R"]).expect("JSON");
        assert_eq!(schema["fields"][0]["type"][1]["symbols"], serde_json::json!(["a", "b"]));
        assert_eq!(schema["fields"][1]["type"], "n.Kind");
        assert_eq!(inline(&out).expect("JSON"), out, "doing it again changes nothing");
        assert!(Schema::parse_str(&out["events/R"]).is_ok());
    }

    #[test]
    fn the_committed_schemas_are_in_sync() {
        sync(&crate::root().join("schemas"), true).expect("in sync");
    }
}
