use std::collections::BTreeMap;
use std::sync::Arc;

use connector_contracts::{Topic, decode};
use connector_domain::command::{ConsentAction, ConsentCommand, DirectoryRecord, NumberSettings};
use connector_ports::log::{Append, Record};
use connector_runtime::provision;

use super::*;

struct Installation {
    log: Arc<dyn Log>,
    topics: Topics,
    _folder: tempfile::TempDir,
}

async fn installation() -> Installation {
    let folder = tempfile::tempdir().unwrap();
    let log = connector_embedded::open(&folder.path().join("log"), Arc::new(SystemClock)).unwrap();
    let topics = Topics::new("");
    provision::apply(&log, &provision::specs(&topics, 3, 1)).await.unwrap();
    Installation { log: Arc::new(log), topics, _folder: folder }
}

const STRICT: fn() -> Options =
    || Options { file: "-".into(), format: None, organization: None, dry_run: false, skip_bad_lines: false };

impl Installation {
    async fn import(&self, what: What, text: &str, options: Options) -> (bool, String) {
        let format = if text.starts_with('{') { Format::Jsonl } else { Format::Csv };
        let mut out = Vec::new();
        let fine = import(self.log.as_ref(), &self.topics, what, format, text, &options, &mut out).await.unwrap();
        (fine, String::from_utf8(out).unwrap())
    }

    async fn records(&self, topic: Topic) -> Vec<Record> {
        let mut found = Vec::new();
        let name = self.topics.name(topic).as_str().into();
        open::each_record(self.log.as_ref(), &name, |record| {
            found.push(record.clone());
            Ok(())
        })
        .await
        .unwrap();
        found
    }

    /// The directory: keys with what stands under them.
    async fn directory(&self) -> BTreeMap<String, Option<DirectoryRecord>> {
        let entry = |record: Record| {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            (key, record.value.map(|value| decode(&value).unwrap()))
        };
        self.records(Topic::Directory).await.into_iter().map(entry).collect()
    }

    async fn commands(&self) -> Vec<ConsentCommand> {
        let records = self.records(Topic::ConsentCommands).await;
        records.iter().map(|record| decode(record.value.as_deref().unwrap()).unwrap()).collect()
    }
}

const PEOPLE: &str = "\
kind,organization,phone_number_id,waba_id,user,enabled,contact,phone,bsuid,name
contact,acme,,,ada,,c-1,+49 170 1234567,,\"Doe, Jo\"
contact,acme,,,ada,,c-2,,US.77,
user,acme,106,,ada,true,,,,
user,acme,,,bob,false,,,,
number,acme,106,102,,,,,,
";

#[tokio::test]
async fn numbers_users_and_contacts_come_in_any_order_and_replace_themselves() {
    let here = installation().await;
    let (fine, said) = here.import(What::Directory, PEOPLE, STRICT()).await;
    assert!(fine && said.contains("5 entries read, 5 good, 0 bad") && said.contains("published 5"), "{said}");
    let directory = here.directory().await;
    let keys: Vec<_> = directory.keys().map(String::as_str).collect();
    assert_eq!(keys, ["contact/acme/ada/c-1", "contact/acme/ada/c-2", "number/106", "user/acme/ada", "user/acme/bob"]);
    let contact = directory["contact/acme/ada/c-1"].as_ref().unwrap();
    assert_eq!(contact.address.phone, PhoneNumber::parse("491701234567").ok());
    assert_eq!(contact.name.as_ref().map(|name| name.expose()), Some("Doe, Jo"));
    let (ada, bob) = (directory["user/acme/ada"].as_ref().unwrap(), directory["user/acme/bob"].as_ref().unwrap());
    assert!(ada.enabled && ada.phone_number_id == Some("106".into()) && !bob.enabled);

    here.import(What::Directory, PEOPLE, STRICT()).await;
    assert_eq!(here.directory().await, directory);
}

#[tokio::test]
async fn one_bad_line_keeps_everything_back_unless_that_was_asked_for() {
    let here = installation().await;
    let file = "\
kind,organization,phone_number_id,waba_id,user,enabled,contact,phone
number,acme,106,102,,,,
user,acme,106,,ada,maybe,,
user,acme,106,,bob,,,
contact,acme,,,bob,,c-1,call +49 170 1234567
contact,acme,,,bob,,c-2,+49 170 1234568
contact,acme,,,eve,,c-3,+49 170 1234569
team,acme,,,,,,
user,,106,,cy,,,
user,acme,107,,di,,,
contact,acme,,,bob,,c-2,+49 170 1234568
contact,acme,,,bob,,491701234560,+491701234560
user,acme,106,,a/b,,,
";
    let expected = "\
line 3: enabled: is neither true nor false
line 5: phone: a phone number begins with a country code that exists and has as many digits as numbers of that country have, with an optional leading plus sign, and spaces, dashes or brackets between them
line 7: user: is not known: neither in the directory nor in this file
line 8: kind: is none of number, user and contact
line 9: organization: is missing
line 10: phone_number_id: is not a number of this organization
line 11: is the same entry as line 6
line 12: contact: must not be the phone number: ids stand in keys
line 13: user: must not contain a slash or control characters
12 entries read, 3 good, 9 bad
";
    let (fine, said) = here.import(What::Directory, file, STRICT()).await;
    assert!(!fine && said.starts_with(expected) && said.contains("nothing was published"), "{said}");
    assert!(!said.contains("1234") && !said.contains("+49"), "a phone number is repeated: {said}");
    assert!(here.directory().await.is_empty());

    let (fine, said) = here.import(What::Directory, file, Options { dry_run: true, ..STRICT() }).await;
    assert!(!fine && said.contains("a dry run: nothing was published") && here.directory().await.is_empty());

    let (fine, said) = here.import(What::Directory, file, Options { skip_bad_lines: true, ..STRICT() }).await;
    assert!(!fine && said.ends_with("published 3\n"), "{said}");
    let keys: Vec<_> = here.directory().await.into_keys().collect();
    assert_eq!(keys, ["contact/acme/bob/c-2", "number/106", "user/acme/bob"]);
}

#[tokio::test]
async fn the_directory_counts_and_nobody_takes_another_organizations_number() {
    let here = installation().await;
    here.import(What::Directory, PEOPLE, STRICT()).await;
    // The user and the number are there already; the organization stands beside the file.
    let more = "{\"kind\":\"contact\",\"user\":\"ada\",\"contact\":\"c-9\",\"phone\":491709999999}\n\
                {\"kind\":\"contact\",\"user\":\"ada\",\"contact\":\"c-1\",\"delete\":true}";
    let acme = Options { organization: Some("acme".to_owned()), ..STRICT() };
    assert!(here.import(What::Directory, more, acme).await.0);
    let directory = here.directory().await;
    assert!(directory["contact/acme/ada/c-9"].is_some() && directory["contact/acme/ada/c-1"].is_none());

    let theft = "kind;organization;phone_number_id;waba_id;user\nnumber;evil;106;102;\nuser;evil;106;;eve";
    let (fine, said) = here.import(What::Directory, theft, STRICT()).await;
    assert!(
        !fine
            && said.starts_with(
                "line 2: phone_number_id: belongs to another organization\nline 3: phone_number_id: is not"
            )
    );
    assert_eq!(here.directory().await, directory);
}

#[tokio::test]
async fn consent_is_imported_with_who_and_proof_and_bad_lines_are_named() {
    let here = installation().await;
    here.import(What::Directory, PEOPLE, STRICT()).await;
    let good = "\
id,organization,user,phone_number_id,phone,bsuid,proof,action
6f1b3d4e-0000-4000-8000-000000000001,acme,ada,,+49 170 1234567,,\"form 7, shop 12\",
,acme,ada,106,,US.77,web form,import
,acme,operator,106,+49 170 1234568,,,revoke
";
    let (fine, said) = here.import(What::Consent, good, STRICT()).await;
    assert!(fine && said.ends_with("published 3\n"), "{said}");
    let mut commands = here.commands().await;
    commands
        .sort_by_key(|command| (command.action == ConsentAction::Revoke, command.recipient.address.phone.is_none()));
    assert_eq!(commands[0].command_id.to_string(), "6f1b3d4e-0000-4000-8000-000000000001");
    assert_eq!(commands[0].proof.as_ref().map(|proof| proof.expose()), Some("form 7, shop 12"));
    assert_eq!((commands[0].user_id.as_str(), commands[0].phone_number_id.as_str()), ("ada", "106"));
    assert_eq!((commands[1].action, commands[2].action), (ConsentAction::Import, ConsentAction::Revoke));

    let bad = "\
id,organization,user,phone_number_id,phone,proof,action
x,acme,ada,,+491701234567,form,
,acme,ada,,+491701234567,,
,acme,bob,,+491701234567,form,
,acme,ada,107,+491701234567,form,
,acme,ada,,,form,
,acme,ada,,+491701234567,form,delete
";
    let expected = "\
line 2: id: is not a UUID
line 3: proof: is missing
line 4: phone_number_id: is missing
line 4: user: is not an enabled user of this organization
line 5: phone_number_id: is not a number of this organization
line 6: phone: is missing, and bsuid as well
line 7: action: is neither import nor revoke
6 entries read, 0 good, 6 bad
";
    let (fine, said) = here.import(What::Consent, bad, STRICT()).await;
    assert!(!fine && said.starts_with(expected) && !said.contains("1234"), "{said}");
    assert_eq!(here.commands().await.len(), 3);
}

#[tokio::test]
async fn a_phone_number_is_no_user_id() {
    let here = installation().await;
    here.import(What::Directory, PEOPLE, STRICT()).await;
    let contacts = "\
kind,organization,user,contact,bsuid
contact,acme,ada,c-3,491701234567
contact,acme,ada,c-4,+49 170 1234567
";
    let consent = "\
organization,user,phone_number_id,bsuid,proof,action
acme,ada,106,491701234567,form,import
acme,ada,106,+491701234567,form,revoke
";
    for (what, file) in [(What::Directory, contacts), (What::Consent, consent)] {
        let (fine, said) = here.import(what, file, STRICT()).await;
        assert!(!fine && said.contains("2 entries read, 0 good, 2 bad") && !said.contains("1234"), "{said}");
        assert!(said.starts_with("line 2: bsuid: ") && said.contains("\nline 3: bsuid: "), "{said}");
    }
    assert!(here.commands().await.is_empty());
}

#[tokio::test]
async fn a_file_without_entries_is_an_error() {
    let here = installation().await;
    let mut out = Vec::new();
    for text in ["", "\n", "kind,organization\n"] {
        let done =
            import(here.log.as_ref(), &here.topics, What::Directory, Format::Csv, text, &STRICT(), &mut out).await;
        assert!(matches!(done, Err(Failed::Usage(_))), "{text:?}: {done:?}");
    }
}

#[tokio::test]
async fn a_number_that_somebody_else_assigns_at_the_same_time_is_told_and_ids_are_opaque() {
    let here = installation().await;
    let text = "kind,organization,phone_number_id,waba_id\nnumber,acme,1,w\n";
    // Somebody began before and has not committed: fenced.
    let mut earlier =
        here.log.transactor(&connector_runtime::assignment::transactional_id(&here.topics, "number/1")).await.unwrap();
    let (fine, said) = here.import(What::Directory, text, STRICT()).await;
    assert!(fine && said.ends_with("published 1\n"), "{said}");
    let append = Append {
        topic: here.topics.name(Topic::Directory).into(),
        partition: None,
        key: Some("number/1".into()),
        value: None,
        headers: vec![],
    };
    let late = match earlier.append(vec![append]).await {
        Ok(_) => earlier.commit(None).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(late, Err(connector_ports::log::LogError::Fenced { .. })), "{late:?}");
    let (fine, said) = here.import(What::Directory, &text.replace("acme", "globex"), STRICT()).await;
    assert!(!fine && said.contains("belongs to another organization"), "{said}");

    let phones =
        "kind,organization,user,enabled,phone_number_id\nuser,acme,+491701234567,true,1\nuser,acme,a b,true,1\n";
    let (fine, said) = here.import(What::Directory, phones, STRICT()).await;
    assert!(!fine && said.contains("must not be the phone number") && said.contains("is no opaque id"), "{said}");
    assert!(!said.contains("4917"), "{said}");
}

#[tokio::test]
async fn what_is_set_for_a_number_stays_when_it_is_assigned_again() {
    let there = installation().await;
    let settings = NumberSettings { number_rate: Some(20), ..NumberSettings::default() };
    let csv = "kind,organization,phone_number_id,waba_id\nnumber,acme,1055500001,waba\n";
    assert!(there.import(What::Directory, csv, STRICT()).await.0);
    let mut record = there.directory().await.remove("number/1055500001").flatten().unwrap();
    record.settings = Some(settings.clone());
    let append = Append {
        topic: there.topics.name(Topic::Directory).as_str().into(),
        partition: None,
        key: record.key().map(Into::into),
        value: Some(connector_contracts::encode(&record).unwrap().into()),
        headers: vec![],
    };
    there.log.appender().await.unwrap().append(vec![append]).await.unwrap();
    assert!(there.import(What::Directory, csv, STRICT()).await.0);
    let kept = there.directory().await.remove("number/1055500001").flatten().and_then(|record| record.settings);
    assert_eq!(kept, Some(settings));
}
