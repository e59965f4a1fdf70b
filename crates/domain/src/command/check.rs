//! What is wrong with a command by itself, whatever is known about those it names. Checked at every door, before anything of it becomes
//! a key.

use std::time::Duration;

use super::{ConsentCommand, Content, ContentKind, DirectoryRecord, Recipient, SendMessage, TemplateCall};
use crate::decide::{MAX_TEXT, Reason, Rejection, utf16_len};
use crate::form::{Formed, is_language, is_template_name};
use crate::ids::{OrganizationId, PhoneNumberId, Text, UserId};
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

/// All values and names of a template's parameters together, in UTF-16 units: twice the longest body of a template that has nothing else
/// (32,768 characters), which is the most that WhatsApp sends of one.
const LONGEST_PARAMETERS: usize = 65_536;

/// The longest of the words that are no person's text: the name of a placeholder, the kind of a button.
const LONGEST_WORD: usize = 512;

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
    /// Whether name, language and the values can be those of a template. `fields`: how these three are called.
    ///
    /// # Errors
    /// `invalid`, with the first field at fault.
    pub(super) fn check(&self, fields: [&'static str; 3]) -> Result<(), Rejection> {
        let [name, language, parameters] = fields;
        found(is_template_name(&self.name), name)?;
        found(is_language(&self.language), language)?;
        found(self.is_short(), parameters)
    }

    /// Whether the parameters are so few and so short that whatever is written about a command fits into the log.
    fn is_short(&self) -> bool {
        let placeholders = || self.header.iter().chain(&self.body);
        let names = placeholders().filter_map(|parameter| parameter.name.as_deref());
        let words = || names.clone().chain(self.buttons.iter().map(|button| button.sub_type.as_str()));
        let values =
            placeholders().map(|parameter| &parameter.text).chain(self.buttons.iter().map(|button| &button.text));
        let lengths = values.map(|text| utf16_len(text.expose())).chain(words().map(utf16_len));
        self.header.len() + self.body.len() + self.buttons.len() <= MOST_PARAMETERS
            && words().all(|word| word.len() <= LONGEST_WORD)
            && lengths.sum::<usize>() <= LONGEST_PARAMETERS
    }
}

fn content(content: &Content) -> Result<(), Rejection> {
    // That of a text message has a rule of its own, with a reason of its own. No other content has one that is sent, but it is kept.
    let short = |text: &Text| content.kind == ContentKind::Text || utf16_len(text.expose()) <= MAX_TEXT;
    found(content.text.as_ref().is_none_or(short), "content.text")?;
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
        let short = |proof: &Text| utf16_len(proof.expose()) <= LONGEST_PROOF;
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

#[cfg(test)]
mod tests {
    use super::super::{ButtonParameter, NumberSettings, SendPolicy, SendPurpose, TemplateParameter};
    use super::*;
    use crate::ids::{CommandId, PhoneNumber};

    fn send(content: Content) -> SendMessage {
        let phone = PhoneNumber::parse("491701234567").ok();
        SendMessage {
            command_id: CommandId::derived("1"),
            organization_id: "acme".into(),
            user_id: "ada".into(),
            phone_number_id: "1".into(),
            recipient: Recipient { address: crate::identity::Address { phone, bsuid: None }, conversation_id: None },
            content,
            policy: SendPolicy::default(),
            purpose: SendPurpose::default(),
            issued_at: Timestamp::EPOCH,
            not_after: None,
        }
    }

    fn call(change: impl FnOnce(&mut TemplateCall)) -> TemplateCall {
        let parameter = || TemplateParameter { name: None, text: "x".into() };
        let button = ButtonParameter { index: 0, sub_type: "url".to_owned(), text: "x".into() };
        let mut call = TemplateCall {
            name: "offer".to_owned(),
            language: "en".to_owned(),
            header: vec![parameter()],
            body: vec![parameter()],
            buttons: vec![button],
        };
        change(&mut call);
        call
    }

    /// Whatever of it a publisher makes long is refused by its field, so that an event with all of it fits into the log.
    #[test]
    fn nothing_of_a_command_has_any_length() {
        let long = |count: usize| Text::from("\u{20ac}".repeat(count).as_str());
        let at_fault = |content: Content| send(content).check(Timestamp::EPOCH).map_err(|refused| refused.field);
        assert_eq!(at_fault(Content::template(call(|_| ()))), Ok(()));
        assert_eq!(at_fault(Content::template(call(|c| c.body[0].text = long(LONGEST_PARAMETERS - 7)))), Ok(()));
        let changes: [fn(&mut TemplateCall, Text); 6] = [
            |c, long| c.header[0].text = long,
            |c, long| c.body[0].text = long,
            |c, long| c.buttons[0].text = long,
            |c, long| c.body[0].name = Some(long.expose().to_owned()),
            |c, long| c.buttons[0].sub_type = long.expose().to_owned(),
            |c, long| {
                let half: String = long.expose().chars().skip(LONGEST_PARAMETERS / 2).collect();
                c.body = vec![TemplateParameter { name: None, text: half.as_str().into() }; 2];
            },
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            let too_long = call(|c| change(c, long(LONGEST_PARAMETERS + 1)));
            assert_eq!(at_fault(Content::template(too_long.clone())), Err("content.template"), "{nth}");
            let settings = NumberSettings { opt_in_template: Some(too_long), ..NumberSettings::default() };
            assert_eq!(settings.check(), Err("opt_in_template"), "{nth}");
        }
        // Beside what is sent: the text of a template is nobody's, and would be kept.
        let beside = |length| Content { text: Some(long(length)), ..Content::template(call(|_| ())) };
        assert_eq!(at_fault(beside(MAX_TEXT)), Ok(()));
        assert_eq!(at_fault(beside(MAX_TEXT + 1)), Err("content.text"));
    }
}
