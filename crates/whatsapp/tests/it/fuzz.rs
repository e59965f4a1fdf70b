//! Deliveries that nobody documented: whatever the structure, nothing panics and nothing is lost.

use std::path::Path;

use connector_domain::command::WebhookKind;
use connector_domain::identity::StreamKeys;
use connector_domain::time::Timestamp;
use connector_whatsapp::webhook::{Split, parse_change, parse_message, parse_status, split};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// `FUZZ_CASES` (600) is how many of each property are tried.
fn cases() -> u32 {
    std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(600)
}

fn fixtures() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
        select(vec!["15550100042", "US.1", "", " ", "0", "-1", "99999999999999999999", "group", "stop"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(
                select(vec![
                    "id", "from", "type", "messages", "statuses", "errors", "value", "wa_id", "code", "entry",
                    "standby", "contacts"
                ]),
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

/// Every place in a JSON value, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, inner)| places(inner, format!("{at}/{name}"), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, inner)| places(inner, format!("{at}/{i}"), found)),
        _ => {}
    }
    found.push(at);
}

fn read_all(found: &[Split]) {
    let keys = StreamKeys::new("k1", b"secret");
    for split in found {
        assert!(!split.key(&keys).is_empty());
        // Every reader gets every item: a wrong `kind` must not be a danger either.
        let _ = (parse_message(&split.item), parse_status(&split.item), parse_change(&split.item));
    }
}

/// How many items a delivery must become, counted independently of the code under test.
fn expected(body: &Value) -> usize {
    let Some(entries) = body["entry"].as_array() else { return 1 };
    entries.iter().map(|entry| entry["changes"].as_array().map_or(1, |list| list.iter().map(of_change).sum())).sum()
}

fn of_change(change: &Value) -> usize {
    let value = &change["value"];
    let field = match &change["field"] {
        Value::String(field) if field.trim().is_empty() => String::new(),
        Value::String(field) => field.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let count = |value: &Value| match value {
        Value::Null => Some(0),
        Value::Array(list) => Some(list.len()),
        _ => None,
    };
    let known = ["messaging_product", "metadata", "contacts", "messages", "statuses", "standby"];
    let rest = |also: &str| {
        let says =
            |(name, value): (&String, &Value)| !known.contains(&name.as_str()) && name != also && !value.is_null();
        usize::from(value.as_object().is_some_and(|fields| fields.iter().any(says)))
    };
    if field == "calls" {
        return match ["calls", "messages", "statuses"].map(|list| count(&value[list])) {
            [Some(calls), Some(0), Some(0)] if calls > 0 => calls + rest("calls"),
            _ => 1,
        };
    }
    if !["messages", "standby", ""].contains(&field.as_str()) {
        return 1;
    }
    let items = |value: &Value| match (count(&value["messages"]), count(&value["statuses"])) {
        (Some(messages), Some(statuses)) => messages + statuses,
        _ => 0,
    };
    let inner = &value["standby"];
    let deeper = items(inner);
    let unknown = |(name, value): (&String, &Value)| {
        !["messaging_product", "metadata", "contacts", "messages", "statuses"].contains(&name.as_str())
            && !value.is_null()
    };
    let of_standby =
        deeper + usize::from(deeper > 0 && inner.as_object().is_some_and(|fields| fields.iter().any(unknown)));
    // Standby that holds no items is kept like anything unknown.
    let kept = usize::from(deeper == 0 && !inner.is_null());
    match items(value) {
        0 if deeper > 0 => of_standby + rest(""),
        0 => 1,
        own => own + of_standby + rest("").max(kept),
    }
}

/// What a text editor that mends would make of bytes: nothing that is no text, and no control characters within quotes.
fn mended(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (mut quoted, mut escape) = (false, false);
    text.chars()
        .map(|c| {
            let shown = if quoted && c < ' ' { '_' } else { c };
            (quoted, escape) = match c {
                _ if escape => (quoted, false),
                '"' => (!quoted, false),
                '\\' => (quoted, quoted),
                _ => (quoted, false),
            };
            shown
        })
        .collect()
}

/// Whether what is left of a delivery is a JSON object of its own: a changed byte may have turned an opening brace into text.
fn is_whole(bytes: &[u8]) -> bool {
    serde_json::from_str::<Value>(&mended(bytes)).is_ok_and(|value| value.is_object())
}

#[test]
fn a_piece_that_is_an_object_of_its_own_is_taken_and_any_other_is_refused() {
    let damaged = br##"{"entry#:[{#changes":[{"field":"messages"}],"id":"1"}],"object":"whatsapp_business_account"}"##;
    let taken: Vec<usize> =
        (0..=damaged.len()).filter(|end| split(&damaged[..*end], Timestamp(0), "d").is_ok()).collect();
    assert_eq!(taken, [br##"{"entry#:[{#changes":[{"field":"messages"}],"id":"1"}"##.len()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_of_structure_is_survived_and_every_item_is_accounted_for(
        fixture in select(fixtures()),
        changes in prop::collection::vec((any::<Index>(), anything()), 1..4),
    ) {
        let mut body = fixture;
        for (index, new) in changes {
            let mut found = Vec::new();
            places(&body, String::new(), &mut found);
            let place = index.get(&found).clone();
            if let Some(spot) = body.pointer_mut(&place) {
                *spot = new;
            }
        }
        let bytes = serde_json::to_vec(&body).unwrap();
        match split(&bytes, Timestamp(0), "d") {
            Ok(found) => {
                prop_assert_eq!(found.len(), expected(&body), "{}", body);
                read_all(&found);
                for split in found.iter().filter(|split| split.item.kind != WebhookKind::Change) {
                    let text = std::str::from_utf8(&bytes).unwrap();
                    prop_assert!(text.contains(split.item.raw.expose()));
                }
            }
            Err(_) => prop_assert!(!body.is_object()),
        }
    }

    #[test]
    fn any_change_of_bytes_is_survived(
        fixture in select(fixtures()),
        cut in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = serde_json::to_vec(&fixture).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(found) = split(&bytes, Timestamp(0), "d") {
            read_all(&found);
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert_eq!(split(&bytes, Timestamp(0), "d").is_ok(), is_whole(&bytes));
    }
}
