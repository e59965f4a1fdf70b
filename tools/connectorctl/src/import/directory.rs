//! Entries of `whatsapp.directory.v1`: business numbers, users with their right to use WhatsApp, contacts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use connector_contracts::{Topic, Topics, encode};
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::ids::{ContactId, OrganizationId, PhoneNumberId, UserId, WabaId};
use connector_ports::log::Append;

use super::known::Known;
use super::rows::Row;
use super::{address, organization};
use crate::Failed;

/// The fields of an entry.
pub(super) const FIELDS: &[&str] = &[
    "kind",
    "organization",
    "phone_number_id",
    "waba_id",
    "user",
    "enabled",
    "contact",
    "phone",
    "bsuid",
    "name",
    "delete",
];

/// A record, and whether it goes (`true`) or is taken away.
type Entry = (DirectoryRecord, bool);

/// Checks entries and makes records of the good ones: numbers first, then users, then contacts, as they need one another.
pub(super) fn records(
    rows: &mut [Row],
    known: &mut Known,
    default: Option<&str>,
    topics: &Topics,
) -> Result<Vec<Append>, Failed> {
    let mut entries: Vec<Option<Entry>> = rows.iter_mut().map(|row| entry(row, default)).collect();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for (row, entry) in rows.iter_mut().zip(&mut entries) {
        let Some(key) = entry.as_ref().and_then(|(record, _)| record.key()) else { continue };
        if let Some(line) = lines.get(&key) {
            row.wrong("", &format!("is the same entry as line {line}"));
            *entry = None;
        } else {
            lines.insert(key, row.line);
        }
    }
    let mut appends = Vec::new();
    for kind in [DirectoryKind::Number, DirectoryKind::User, DirectoryKind::Contact] {
        for (row, entry) in rows.iter_mut().zip(&entries) {
            let Some((record, stays)) = entry.as_ref().filter(|(record, _)| record.kind == kind) else { continue };
            if !belongs(row, record, *stays, known) {
                continue;
            }
            if *stays {
                known.add(record);
            } else {
                known.remove(record);
            }
            // A file says nothing about what is set for a number: that stays.
            let number = record.phone_number_id.as_ref().filter(|_| kind == DirectoryKind::Number);
            let settings = number.and_then(|number| known.settings.get(number.as_str()).cloned());
            let record = &DirectoryRecord { settings, ..record.clone() };
            let value = if *stays { Some(Bytes::from(encode(record)?)) } else { None };
            let topic = topics.name(Topic::Directory).into();
            appends.push(Append { topic, partition: None, key: record.key().map(Bytes::from), value, headers: vec![] });
        }
    }
    Ok(appends)
}

/// The keys of the numbers that these lines are about.
pub(super) fn numbers(rows: &[Row]) -> BTreeSet<String> {
    let numbers = rows.iter().filter(|row| row.get("kind") == Some("number"));
    numbers.filter_map(|row| row.get("phone_number_id")).map(|number| format!("number/{number}")).collect()
}

/// What a line says by itself.
fn entry(row: &mut Row, default: Option<&str>) -> Option<Entry> {
    if !row.problems.is_empty() {
        return None;
    }
    let kind = match row.text("kind").as_deref() {
        Some("number") => DirectoryKind::Number,
        Some("user") => DirectoryKind::User,
        Some("contact") => DirectoryKind::Contact,
        Some(_) => {
            row.wrong("kind", "is none of number, user and contact");
            return None;
        }
        None => return None,
    };
    let stays = !row.flag("delete", false);
    let mut record = DirectoryRecord {
        kind,
        organization_id: OrganizationId(organization(row, default).unwrap_or_default()),
        phone_number_id: row.optional_id("phone_number_id").map(PhoneNumberId),
        waba_id: None,
        user_id: None,
        enabled: false,
        contact_id: None,
        address: connector_domain::identity::Address::default(),
        name: None,
        settings: None,
        state: None,
    };
    match kind {
        DirectoryKind::Number => {
            record.phone_number_id = row.id("phone_number_id").map(PhoneNumberId);
            record.waba_id = if stays { row.id("waba_id").map(WabaId) } else { None };
        }
        DirectoryKind::User => {
            record.user_id = row.id("user").map(UserId);
            record.enabled = stays && row.flag("enabled", true);
            if record.enabled && record.phone_number_id.is_none() && row.get("phone_number_id").is_none() {
                row.wrong("phone_number_id", "is missing: an enabled user writes from a number");
            }
        }
        _ => {
            record.user_id = row.id("user").map(UserId);
            record.contact_id = row.id("contact").map(ContactId);
            if stays {
                record.address = address(row);
                record.name = row.get("name").map(Into::into);
            }
        }
    }
    let phone = record.address.phone.as_ref().map(|phone| phone.expose().to_owned());
    for (field, id) in [
        ("contact", record.contact_id.as_ref().map(|id| id.as_str())),
        ("user", record.user_id.as_ref().map(|id| id.as_str())),
    ] {
        if phone.is_some() && phone.as_deref() == id.map(|id| id.trim_start_matches('+')) {
            row.wrong(field, "must not be the phone number: ids stand in keys");
        }
    }
    row.problems.is_empty().then_some((record, stays))
}

/// Whether what a line refers to is there, and is its organization's (P4).
fn belongs(row: &mut Row, record: &DirectoryRecord, stays: bool, known: &Known) -> bool {
    let organization = record.organization_id.as_str();
    let number = record.phone_number_id.as_ref().map(PhoneNumberId::as_str);
    match (record.kind, number) {
        (DirectoryKind::Number, Some(number)) if known.numbers.get(number).is_some_and(|o| o != organization) => {
            row.wrong("phone_number_id", "belongs to another organization");
        }
        (DirectoryKind::User | DirectoryKind::Contact, Some(number))
            if stays && !known.is_number_of(number, organization) =>
        {
            row.wrong("phone_number_id", "is not a number of this organization");
        }
        _ => {}
    }
    if record.kind == DirectoryKind::Contact
        && stays
        && let Some(user) = &record.user_id
    {
        match known.users.get(&(organization.to_owned(), user.to_string())) {
            None => row.wrong("user", "is not known: neither in the directory nor in this file"),
            Some(None) if number.is_none() => {
                row.wrong("user", "is not enabled: a contact of such a user has to name a phone_number_id");
            }
            Some(_) => {}
        }
    }
    row.problems.is_empty()
}
