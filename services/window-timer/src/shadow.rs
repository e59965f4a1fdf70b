//! The second fold of windows, for the audit: what the log says about each conversation, without the gate.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::glimpse;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Timer, View};
use connector_ports::log::{Offset, Record};
use connector_runtime::audit::{Question, Questions, Shadow};
use connector_runtime::failure::Failure;

use crate::names::{Names, Values};
use crate::timer::beside;
use crate::window::{Leads, Told, Window};

/// How many lengths of a window the log has to be read back, see [`Windows::since`].
pub(crate) const REACH: u32 = 3;

/// What is known of a conversation's window.
#[derive(Clone, Copy)]
enum Known {
    /// The log was not read from its beginning, and what was read does not tell yet.
    Nothing,
    /// This is what the log says.
    All(Option<Window>),
}

/// The windows of one partition.
pub struct Windows {
    leads: Leads,
    /// A message whose window ends later than this overrules whatever was said before the first record that is read.
    floor: Option<Timestamp>,
    /// By conversation, then by organization: a number may have moved from one to another.
    windows: HashMap<String, HashMap<String, Known>>,
    size: usize,
    names: Names,
}

impl Windows {
    /// A fold that is read from the beginning of the log.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self { leads: Leads::of(rules), floor: None, windows: HashMap::new(), size: 0, names: Names::default() }
    }

    /// A fold that is read from this moment of the log on. A window that was opened before it and a length of it (for clocks that
    /// differ) has ended two lengths later: a conversation is known from its first message whose window ends later still.
    #[must_use]
    pub fn since(rules: &Rules, since: Timestamp) -> Self {
        Self { floor: Some(since + 2 * rules.window), ..Self::new(rules) }
    }

    fn known(&self, question: &Question) -> Option<Option<Window>> {
        let (organization, _) = self.names.owner(&question.key)?;
        match self.windows.get(&question.stream)?.get(organization.as_str())? {
            Known::All(window) => Some(*window),
            Known::Nothing => None,
        }
    }
}

#[async_trait]
impl Shadow for Windows {
    fn fold(&mut self, records: &[Record]) -> Result<(), Failure> {
        for record in records.iter().filter(|record| !beside(record)) {
            let Some(Ok(event)) = record.value.as_deref().map(glimpse) else { continue };
            let Some(told) = Told::of(&event) else { continue };
            let unknown = if self.floor.is_some() { Known::Nothing } else { Known::All(None) };
            let stream = self.windows.entry(event.stream_id.to_owned()).or_default();
            let known = stream.entry(event.organization_id.to_owned()).or_insert_with(|| {
                self.size += 1;
                unknown
            });
            *known = match *known {
                Known::All(window) => Known::All(self.leads.evolve(window, told)),
                // A window that opens from nothing and ends later than any before it is the same whatever was before it.
                Known::Nothing => match self.leads.evolve(None, told) {
                    Some(window) if Some(window.deadline) > self.floor => Known::All(Some(window)),
                    _ => Known::Nothing,
                },
            };
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.size
    }

    fn retain(&mut self, keep: &dyn Fn(&str) -> bool) {
        self.windows.retain(|stream, _| keep(stream));
        self.size = self.windows.values().map(HashMap::len).sum();
    }

    async fn prepare(&mut self, gate: &dyn Gate, view: &View, position: Offset) -> Result<(), Failure> {
        if Values::Seen(gate, view, position).leads().await?.is_some_and(|leads| leads != self.leads.name()) {
            return Err(Failure::Later(format!("{view} was built under other leads")));
        }
        self.names = Names::read(Values::Seen(gate, view, position)).await?;
        Ok(())
    }

    fn questions(&self) -> Questions {
        let mut timers = Vec::new();
        for (stream, organizations) in &self.windows {
            for (organization, known) in organizations {
                if let Known::All(window) = known {
                    // An organization that the view does not know has no window there: that is what is asked then.
                    let key = self.names.known_key(organization, stream);
                    let nowhere = window.is_some().then(|| format!("-.{stream}"));
                    timers.extend(key.or(nowhere).map(|key| Question { stream: stream.clone(), key }));
                }
            }
        }
        Questions { timers, ..Questions::default() }
    }

    fn value_agrees(&self, _: &Question, _: Option<&Bytes>) -> bool {
        true
    }

    fn timer_agrees(&self, question: &Question, timer: Option<Timer>) -> bool {
        // Of an organization without a name only a missing timer was asked for.
        self.known(question).is_some_and(|window| window.map(|window| self.leads.timer(window)) == timer)
    }
}
