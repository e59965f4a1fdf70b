//! How schema files are written: the keys in the order people read them, short things on one line.

use serde_json::Value;

const LONGEST: usize = 100;

/// The order of keys in a field, then in a type. What is in neither comes last, by name.
const FIELD: &[&str] = &["name", "doc", "type", "default"];
const TYPE: &[&str] = &["type", "logicalType", "name", "namespace", "doc", "symbols", "items", "fields", "default"];

/// The value as JSON text without a line end.
pub(super) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

fn ordered(value: &Value) -> Vec<(&String, &Value)> {
    let Value::Object(object) = value else { return Vec::new() };
    let is_type = ["fields", "symbols", "items", "logicalType"].iter().any(|key| object.contains_key(*key));
    let order = if is_type { TYPE } else { FIELD };
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| (order.iter().position(|k| k == key).unwrap_or(order.len()), (*key).clone()));
    entries
}

fn one_line(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => {
            let items = items.iter().map(one_line).collect::<Option<Vec<_>>>()?;
            Some(format!("[{}]", items.join(", ")))
        }
        // What has documentation is worth lines of its own.
        Value::Object(object) if object.contains_key("doc") => None,
        Value::Object(_) => {
            let entry = |(key, inner): (&String, &Value)| Some(format!("\"{key}\": {}", one_line(inner)?));
            let entries = ordered(value).into_iter().map(entry).collect::<Option<Vec<_>>>()?;
            Some(format!("{{ {} }}", entries.join(", ")))
        }
        scalar => Some(scalar.to_string()),
    }
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let inner = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    if let Some(line) = one_line(value)
        && (line.len() + end.len() <= LONGEST || !(value.is_array() || value.is_object()))
    {
        out.push_str(&line);
        return;
    }
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    out.push(open);
    let mut separator = "\n";
    if let Value::Array(items) = value {
        for item in items {
            out.push_str(separator);
            out.push_str(&inner);
            write(item, depth + 1, out);
            separator = ",\n";
        }
    }
    for (key, item) in ordered(value) {
        out.push_str(separator);
        out.push_str(&format!("{inner}\"{key}\": "));
        write(item, depth + 1, out);
        separator = ",\n";
    }
    out.push_str(&format!("\n{end}{close}"));
}
