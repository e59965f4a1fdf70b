//! Asks, compares, writes the difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{DirectoryKind, DirectoryRecord, NumberState};
use connector_domain::identity::Address;
use connector_domain::ids::{OrganizationId, PhoneNumberId, WabaId};
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_ports::log::Append;
use connector_ports::{Clock, Log, WhatsApp};
use connector_runtime::backoff::Backoff;
use connector_runtime::emit::Emitter;
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::status::Status;
use connector_runtime::table::Table;
use tokio_util::sync::CancellationToken;

use crate::news::News;
use crate::{Config, SERVICE};

/// How often the directory is looked at for new accounts.
const LOOK: Duration = Duration::from_secs(1);

/// How long the table may take to catch up before a comparison.
const SETTLE: Duration = Duration::from_secs(10);

/// The first wait after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Each account once, whoever it belongs to, with the organization that its templates are written down for: of several the least, so that
/// nothing changes from one question to the next.
type Accounts = BTreeMap<WabaId, OrganizationId>;

/// When an account is asked about next.
struct Schedule {
    due: Timestamp,
    backoff: Backoff,
}

/// The task.
pub struct Catalog {
    interval: Duration,
    whatsapp: Arc<dyn WhatsApp>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    emitter: Emitter,
    numbers: Table<DirectoryRecord>,
    templates: Table<Template>,
    news: Arc<News>,
    status: Status,
}

impl Catalog {
    /// A catalogue on a platform. Both tables, and the news, are followed by tasks of the service.
    #[must_use]
    pub(crate) fn new(
        config: Config,
        whatsapp: Arc<dyn WhatsApp>,
        platform: &Platform,
        (numbers, templates): (Table<DirectoryRecord>, Table<Template>),
        news: Arc<News>,
        status: Status,
    ) -> Self {
        Self {
            interval: config.interval,
            whatsapp,
            log: platform.log.clone(),
            clock: platform.clock.clone(),
            emitter: platform.emitter(SERVICE),
            numbers,
            templates,
            news,
            status,
        }
    }

    /// Works until `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut schedules: BTreeMap<WabaId, Schedule> = BTreeMap::new();
        self.status.set_ready();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => self.status.set_draining(),
            () = async { loop { self.round(&mut schedules).await } } => {}
        }
    }

    async fn round(&self, schedules: &mut BTreeMap<WabaId, Schedule>) {
        self.status.alive(self.clock.now());
        let accounts = self.accounts();
        schedules.retain(|account, _| accounts.contains_key(account));
        let news = self.news.take();
        for (account, organization) in accounts {
            let now = self.clock.now();
            let new = || Schedule { due: now, backoff: Backoff::new(RETRY, self.interval.max(RETRY)) };
            let schedule = schedules.entry(account.clone()).or_insert_with(new);
            if schedule.due > now && !news.contains(&account) {
                continue;
            }
            let wait = match self.status.waiting(self.clock.as_ref(), self.sync(&organization, &account)).await {
                Ok(changed) => {
                    if changed > 0 {
                        tracing::info!(waba_id = %account, changed, "templates changed");
                    }
                    schedule.backoff.reset();
                    self.interval
                }
                Err(reason) => {
                    tracing::warn!(waba_id = %account, reason, "templates cannot be brought up to date");
                    schedule.backoff.grow()
                }
            };
            schedule.due = self.clock.now() + wait;
        }
        self.clock.sleep(LOOK).await;
    }

    fn accounts(&self) -> Accounts {
        let mut accounts = Accounts::new();
        for record in self.numbers.all().iter().filter(|record| record.kind == DirectoryKind::Number) {
            let Some(waba) = record.waba_id.clone() else { continue };
            let owner = accounts.entry(waba).or_insert_with(|| record.organization_id.clone());
            if record.organization_id < *owner {
                owner.clone_from(&record.organization_id);
            }
        }
        accounts
    }

    async fn sync(&self, organization: &OrganizationId, waba: &WabaId) -> Result<usize, String> {
        let there = self.whatsapp.templates(organization, waba).await.map_err(|error| error.to_string())?;
        let changed = self.write(waba, &there).await.map_err(|failure| failure.to_string())?;
        let states = self.states(waba).await.map_err(|failure| failure.to_string())?;
        Ok(changed + states)
    }

    /// Asks about every number of an account, whoever has it, and writes what is new.
    async fn states(&self, waba: &WabaId) -> Result<usize, Failure> {
        let mut records = Vec::new();
        let all = self.numbers.all();
        let of_account = all
            .iter()
            .filter(|record| record.kind == DirectoryKind::Number && record.waba_id.as_ref() == Some(waba))
            .filter_map(|record| Some((&record.organization_id, record.phone_number_id.as_ref()?)));
        for (organization, number) in of_account {
            let reported = match self.whatsapp.number_state(number).await {
                Ok(reported) => reported,
                Err(error) => {
                    tracing::warn!(%number, %error, "the state of a number cannot be read");
                    continue;
                }
            };
            let record = state_record(organization, number, reported);
            let Some(key) = record.key() else { continue };
            let known = self.numbers.newest(&key, SETTLE).await?;
            if known.as_deref() != Some(&record) {
                records.push(self.emitter.record(Topic::Directory, &key, &record, None)?);
            }
        }
        let count = records.len();
        if count > 0 {
            self.log.appender().await?.append(records).await?;
        }
        Ok(count)
    }

    async fn write(&self, waba: &WabaId, there: &[Template]) -> Result<usize, Failure> {
        // Up to the end, what we wrote last included.
        self.templates.complete(SETTLE).await?;
        let all = self.templates.all();
        let here: Vec<&Template> = all.iter().map(|template| &**template).filter(|t| t.waba_id == *waba).collect();
        let records = changes(&self.emitter, &here, there)?;
        let count = records.len();
        if count > 0 {
            self.log.appender().await?.append(records).await?;
        }
        Ok(count)
    }
}

fn state_record(organization: &OrganizationId, number: &PhoneNumberId, state: NumberState) -> DirectoryRecord {
    DirectoryRecord {
        kind: DirectoryKind::NumberState,
        organization_id: organization.clone(),
        phone_number_id: Some(number.clone()),
        waba_id: None,
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: Some(state),
    }
}

/// The records that turn what is `here` into what is `there`, both of one account.
///
/// # Errors
/// Only when a template does not fit its schema, which is a mistake of ours.
pub fn changes(emitter: &Emitter, here: &[&Template], there: &[Template]) -> Result<Vec<Append>, Failure> {
    let key = |template: &Template| Template::key(&template.waba_id, &template.name, &template.language);
    let mut gone: BTreeMap<String, &Template> = here.iter().map(|template| (key(template), *template)).collect();
    let mut records = Vec::new();
    for template in there {
        let key = key(template);
        if gone.remove(&key) != Some(template) {
            records.push(emitter.record(Topic::Templates, &key, template, None)?);
        }
    }
    for key in gone.into_keys() {
        let topic = emitter.topic(Topic::Templates);
        records.push(Append { topic, partition: None, key: Some(key.into()), value: None, headers: Vec::new() });
    }
    Ok(records)
}
