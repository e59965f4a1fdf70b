//! Types that several schemas use stand once in `schemas/shared/` and inlined in every file that uses them, so that a stock
//! library can read any file alone. This copies them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Files;
use super::format::pretty;
use crate::Failure;

/// Every file but history with the shared types of `schemas/shared/` in it, formatted.
///
/// # Errors
/// When a file is not JSON.
pub fn inline(files: &Files) -> Result<Files, Failure> {
    let mut parsed = BTreeMap::new();
    for (subject, text) in files.iter().filter(|(subject, _)| !subject.starts_with("history/")) {
        let value: Value =
            serde_json::from_str(text).map_err(|e| Failure::broken(format!("schemas/{subject}.avsc"), e))?;
        parsed.insert(subject.clone(), value);
    }
    let shared: BTreeMap<String, Value> = parsed
        .iter()
        .filter(|(subject, _)| subject.starts_with("shared/"))
        .filter_map(|(_, value)| Some((full_name(value)?, value.clone())))
        .collect();
    Ok(parsed
        .into_iter()
        .map(|(subject, mut value)| {
            put(&mut value, &shared, &mut BTreeSet::new(), true);
            (subject, pretty(&value) + "\n")
        })
        .collect())
}

fn full_name(value: &Value) -> Option<String> {
    Some(format!("{}.{}", value["namespace"].as_str()?, value["name"].as_str()?))
}

/// Writes a type out where it is used first, and only names it where it is used again.
fn put(value: &mut Value, shared: &BTreeMap<String, Value>, seen: &mut BTreeSet<String>, root: bool) {
    let named = match &*value {
        Value::String(name) => shared.contains_key(name).then(|| name.clone()),
        Value::Object(_) => full_name(value),
        _ => None,
    };
    if let Some(name) = named {
        if !seen.insert(name.clone()) {
            *value = Value::String(name);
            return;
        }
        if let (false, Some(definition)) = (root, shared.get(&name)) {
            *value = definition.clone();
        }
    }
    match value {
        Value::Array(variants) => variants.iter_mut().for_each(|variant| put(variant, shared, seen, false)),
        Value::Object(object) => {
            if let Some(Value::Array(fields)) = object.get_mut("fields") {
                for field in fields {
                    if let Some(inner) = field.get_mut("type") {
                        put(inner, shared, seen, false);
                    }
                }
            } else if let Some(items) = object.get_mut("items") {
                put(items, shared, seen, false);
            }
        }
        _ => {}
    }
}
