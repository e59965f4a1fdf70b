//! What is wrong with a command by itself, whatever is known about those it names. Checked at every door, before anything of it becomes
//! a key.

use std::time::Duration;

use super::{ConsentCommand, Content, DirectoryRecord, Recipient, SendMessage, TemplateCall};
use crate::decide::{Reason, Rejection, utf16_len};
use crate::form::{Formed, is_language, is_template_name};
use crate::ids::{OrganizationId, PhoneNumberId, UserId};
use crate::time::Timestamp;

/// The longest life of a command: a day less than the topic of accepted messages keeps them, so that what was accepted is still there
/// when its time is over.
pub const LONGEST_LIFE: Duration = Duration::from_secs(6 * 24 * 3600);

/// The last moment that RFC 3339 can write.
const LAST: Timestamp = Timestamp(253_402_300_799_999);

/// The longest proof of a consent, in UTF-16 units.
const LONGEST_PROOF: usize = 4096;

/// The parameters of a template at most; WhatsApp has far fewer.
const MOST_PARAMETERS: usize = 256;

fn found(right: bool, field: &'static str) -> Result<(), Rejection> {
    if right { Ok(()) } else { Err(Reason::Invalid.at(field)) }
}

fn people(organization: &OrganizationId, user: &UserId, number: &PhoneNumberId) -> Result<(), Rejection> {
    found(organization.is_formed(), "organization_id")?;
    found(user.is_formed(), "user_id")?;
    found(number.is_formed(), "phone_number_id")
}

fn recipient(recipient: &Recipient) -> Result<(), Rejection> {
    found(recipient.conversation_id.as_ref().is_none_or(Formed::is_formed), "recipient.conversation_id")?;
    found(recipient.address.bsuid.as_ref().is_none_or(Formed::is_formed), "recipient.bsuid")
}

impl TemplateCall {
    /// Whether name, language and the number of the values can be those of a template. `fields`: how these three are called.
    ///
    /// # Errors
    /// `invalid`, with the first field at fault.
    pub(super) fn check(&self, fields: [&'static str; 3]) -> Result<(), Rejection> {
        let [name, language, parameters] = fields;
        found(is_template_name(&self.name), name)?;
        found(is_language(&self.language), language)?;
        let few = self.header.len() + self.body.len() + self.buttons.len() <= MOST_PARAMETERS;
        found(few, parameters)
    }
}

fn content(content: &Content) -> Result<(), Rejection> {
    found(content.reply_to.as_ref().is_none_or(Formed::is_formed), "content.reply_to")?;
    let fields = ["content.template.name", "content.template.language", "content.template"];
    content.template.as_ref().map_or(Ok(()), |call| call.check(fields))
}

fn issued(at: Timestamp) -> Result<(), Rejection> {
    found((Timestamp::EPOCH..=LAST).contains(&at), "issued_at")
}

impl SendMessage {
    /// Whether the command is one, at `now`.
    ///
    /// # Errors
    /// `invalid`, with the first field at fault.
    pub fn check(&self, now: Timestamp) -> Result<(), Rejection> {
        people(&self.organization_id, &self.user_id, &self.phone_number_id)?;
        recipient(&self.recipient)?;
        content(&self.content)?;
        issued(self.issued_at)?;
        let end = now + LONGEST_LIFE;
        found(self.not_after.is_none_or(|at| (Timestamp::EPOCH..=end).contains(&at)), "not_after")
    }
}

impl ConsentCommand {
    /// Whether the command is one.
    ///
    /// # Errors
    /// `invalid`, with the first field at fault.
    pub fn check(&self) -> Result<(), Rejection> {
        people(&self.organization_id, &self.user_id, &self.phone_number_id)?;
        recipient(&self.recipient)?;
        let fields = ["template.name", "template.language", "template"];
        self.template.as_ref().map_or(Ok(()), |call| call.check(fields))?;
        let short = |proof: &crate::ids::Text| utf16_len(proof.expose()) <= LONGEST_PROOF;
        found(self.proof.as_ref().is_none_or(short), "proof")?;
        issued(self.issued_at)
    }
}

impl DirectoryRecord {
    /// The first id that has not the form of one (R13). Whoever follows the directory passes such a record over.
    #[must_use]
    pub fn misformed(&self) -> Option<&'static str> {
        fn wrong(id: Option<&impl Formed>) -> bool {
            id.is_some_and(|id| !id.is_formed())
        }
        let ids = [
            (wrong(Some(&self.organization_id)), "organization_id"),
            (wrong(self.phone_number_id.as_ref()), "phone_number_id"),
            (wrong(self.waba_id.as_ref()), "waba_id"),
            (wrong(self.user_id.as_ref()), "user_id"),
            (wrong(self.contact_id.as_ref()), "contact_id"),
        ];
        ids.into_iter().find_map(|(wrong, field)| wrong.then_some(field))
    }
}
