//! Two versions of one schema: can each read what the other wrote?

use apache_avro::Schema;
use apache_avro::error::CompatibilityError;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use connector_contracts::schema::expand;

/// Why the two versions cannot read each other without loss, one sentence per direction. Empty when they can.
#[must_use]
pub fn incompatibilities(earlier: &Schema, later: &Schema) -> Vec<String> {
    // The library compares a reference only with a reference; where a type is written out first is a matter of field order.
    let (earlier, later) = (expand(earlier), expand(later));
    let direction = |writer, reader, what: &str| match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some(format!("{what}: {}", partial(writer, reader))),
        Err(error) => Some(format!("{what}: {}", explain(&error))),
    };
    let backward = direction(&earlier, &later, "records written before cannot be read now");
    let forward = direction(&later, &earlier, "records written now cannot be read by earlier builds");
    backward.into_iter().chain(forward).collect()
}

/// The path of the field and what is wrong with it.
fn explain(error: &CompatibilityError) -> String {
    let mut path = Vec::new();
    let mut at = error;
    while let CompatibilityError::FieldTypeMismatch(field, inner) = at {
        path.push(field.as_str());
        at = inner;
    }
    if let CompatibilityError::MissingDefaultValue(field) = at {
        path.push(field);
        return format!("field `{}` has no default, so it cannot be added or removed", path.join("."));
    }
    if path.is_empty() { at.to_string() } else { format!("field `{}` changed its type ({at})", path.join(".")) }
}

/// Where a union reads some values but not all: the library says that it is so, not where.
fn partial(writer: &Schema, reader: &Schema) -> String {
    if let (Schema::Record(writer), Schema::Record(reader)) = (writer, reader) {
        for field in &reader.fields {
            let Some(written) = writer.fields.iter().find(|w| w.name == field.name) else { continue };
            if SchemaCompatibility::can_read(&written.schema, &field.schema) != Ok(Compatibility::Full) {
                return match partial(&written.schema, &field.schema) {
                    inner if inner.starts_with("field `") => {
                        inner.replacen("field `", &format!("field `{}.", field.name), 1)
                    }
                    inner => format!("field `{}` {inner}", field.name),
                };
            }
        }
    }
    if let (Schema::Union(writer), Schema::Union(reader)) = (writer, reader)
        && let ([_, writer @ Schema::Record(_)], [_, reader @ Schema::Record(_)]) =
            (writer.variants(), reader.variants())
    {
        return match SchemaCompatibility::can_read(writer, reader) {
            Err(error) => explain(&error),
            Ok(_) => partial(writer, reader),
        };
    }
    "reads only some of the values that can be written".to_owned()
}
