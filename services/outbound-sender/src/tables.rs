//! What admission and dispatch look up: situations, and the numbers and templates of all organizations, followed in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{DirectoryRecord, TemplateCall};
use connector_domain::ids::{PhoneNumberId, WabaId};
use connector_domain::template::Template;
use connector_runtime::failure::Failure;
use connector_runtime::holding::Holding;
use connector_runtime::numbers::Numbers;
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_runtime::situation::Situations;
use connector_runtime::status::Status;
use connector_runtime::table::Table;

/// What admission and dispatch look up. Clones are the same tables.
#[derive(Clone)]
pub struct Tables {
    numbers: Numbers,
    templates: Table<Template>,
    situations: Situations,
}

/// What the tables say about one command.
pub struct Facts {
    /// The number it names.
    pub number: Option<Arc<DirectoryRecord>>,
    /// The template it names, of the number's account.
    pub template: Option<Arc<Template>>,
}

/// How long tables may take to be read up to their ends while something waits for that which is decided already.
const BESIDE: Duration = Duration::from_millis(100);

/// What a decision about one message stands on, as far as the tables go.
struct Known {
    id: PhoneNumberId,
    number: Option<Arc<DirectoryRecord>>,
    /// Of the template, when there is one.
    key: Option<String>,
    template: Option<Arc<Template>>,
}

fn is_same<T: PartialEq>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

/// Whether a table got there.
fn held(read: Result<(), Failure>) -> Result<bool, Failure> {
    match read {
        Ok(()) => Ok(true),
        Err(Failure::Later(reason)) => {
            tracing::debug!(reason, "what was decided is not settled");
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

fn any(_: &str) -> bool {
    true
}

impl Tables {
    /// Tables that are empty until they are followed.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        let (log, clock) = (&platform.log, &platform.clock);
        Self {
            numbers: Numbers::new(platform),
            templates: Table::new(log.clone(), clock.clone(), platform.topic(Topic::Templates), any),
            situations: Situations::new(platform),
        }
    }

    /// Adds the tasks that keep the tables up to date.
    pub fn follow(&self, service: &mut Service) {
        let shutdown = service.shutdown();
        self.numbers.follow("outbound-sender.numbers", service);
        let templates = self.templates.clone();
        // Ready from the start: whoever asks for what is missing waits for the end of the topic anyway.
        let status = Status::default();
        status.set_ready();
        service.task("outbound-sender.templates", status, async move {
            templates.follow(shutdown).await;
            Ok(())
        });
    }

    /// Situations. All who ask share one look at the log.
    #[must_use]
    pub fn situations(&self) -> Situations {
        self.situations.clone()
    }

    /// What decisions about these numbers and templates need: both tables read up to the ends of their topics as of this call. The templates
    /// of a number are those of its account, which its record names.
    ///
    /// # Errors
    /// `Later` when a topic cannot be read to its end in time.
    pub async fn at_end(
        &self,
        asked: &[(PhoneNumberId, Option<&TemplateCall>)],
        within: Duration,
    ) -> Result<Vec<Facts>, Failure> {
        self.numbers.at_end(asked.iter().map(|(id, _)| id), within).await?;
        let found: Vec<_> = asked
            .iter()
            .map(|(id, call)| {
                let number = self.numbers.get(id);
                let waba = number.as_ref().and_then(|number| number.waba_id.as_ref());
                let template = waba.zip(*call).map(|(waba, call)| Template::key(waba, &call.name, &call.language));
                (number, template)
            })
            .collect();
        let templates: BTreeSet<&String> = found.iter().filter_map(|(_, key)| key.as_ref()).collect();
        self.templates.at_end(&templates.into_iter().collect::<Vec<_>>(), within).await?;
        Ok(found
            .into_iter()
            .map(|(number, key)| Facts { number, template: key.and_then(|key| self.templates.get(&key)) })
            .collect())
    }

    /// Whether what the tables have now about these numbers and templates is what stands at the ends of their topics as of this call: one
    /// answer for each, found out beside the work. A table that does not get there soon holds nothing.
    pub fn holding<'a>(&self, asked: impl Iterator<Item = (PhoneNumberId, Option<&'a TemplateCall>)>) -> Holding {
        let known: Vec<Known> = asked.map(|(id, call)| self.known(id, call)).collect();
        let tables = self.clone();
        Holding::of(async move {
            let numbers = tables.numbers.at_end(known.iter().map(|known| &known.id), BESIDE);
            let templates: BTreeSet<&String> = known.iter().filter_map(|known| known.key.as_ref()).collect();
            let templates: Vec<_> = templates.into_iter().collect();
            let (numbers, templates) = futures::join!(numbers, tables.templates.at_end(&templates, BESIDE));
            let (numbers, templates) = (held(numbers)?, held(templates)?);
            let same = |known: &Known| {
                let number = numbers && is_same(tables.numbers.get(&known.id).as_ref(), known.number.as_ref());
                let template = |key| templates && is_same(tables.templates.get(key).as_ref(), known.template.as_ref());
                number && known.key.as_deref().is_none_or(template)
            };
            Ok(known.iter().map(same).collect())
        })
    }

    fn known(&self, id: PhoneNumberId, call: Option<&TemplateCall>) -> Known {
        let number = self.numbers.get(&id);
        let waba = number.as_ref().and_then(|number| number.waba_id.as_ref());
        let key = waba.zip(call).map(|(waba, call)| Template::key(waba, &call.name, &call.language));
        let template = key.as_ref().and_then(|key| self.templates.get(key));
        Known { id, number, key, template }
    }

    /// A business number. With a patience it is the newest there is, and absence is final.
    ///
    /// # Errors
    /// `Later` when the topic cannot be read to its end in time.
    pub async fn number(
        &self,
        id: &PhoneNumberId,
        patience: Option<Duration>,
    ) -> Result<Option<Arc<DirectoryRecord>>, Failure> {
        self.numbers.number(id, patience).await
    }

    /// The numbers with what is set for them and what WhatsApp reports.
    #[must_use]
    pub const fn of_numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The numbers of an account, or all there are, as far as they are known.
    #[must_use]
    pub fn numbers(&self, account: Option<&WabaId>) -> Vec<PhoneNumberId> {
        let all = self.numbers.all();
        let of_account =
            all.iter().filter(|record| account.is_none_or(|account| record.waba_id.as_ref() == Some(account)));
        of_account.filter_map(|record| record.phone_number_id.clone()).collect()
    }

    /// A template by the key of its slot. With a patience it is the newest there is, and absence is final.
    ///
    /// # Errors
    /// `Later` when the topic cannot be read to its end in time.
    pub async fn template(&self, key: &str, patience: Option<Duration>) -> Result<Option<Arc<Template>>, Failure> {
        match patience {
            None => Ok(self.templates.get(key)),
            Some(within) => self.templates.newest(key, within).await,
        }
    }
}
