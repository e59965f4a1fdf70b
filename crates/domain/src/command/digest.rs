//! A stable hash over what a command asks for, independent of any encoding.

use sha2::{Digest, Sha256};

use super::{ConsentCommand, Content, Recipient, SendMessage, SendPolicy, SendPurpose, TemplateCall};
use crate::command::{ConsentAction, ContentKind};

/// Feeds values so that no two different sequences are the same bytes: every text is preceded by its length, every optional
/// value by whether it is there.
struct Canonical(Sha256);

impl Canonical {
    fn number(&mut self, number: i64) {
        self.0.update(number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    fn recipient(&mut self, recipient: &Recipient) {
        self.optional(recipient.conversation_id.as_ref().map(|id| id.as_str()));
        self.optional(recipient.address.phone.as_ref().map(|phone| phone.expose()));
        self.optional(recipient.address.bsuid.as_ref().map(|bsuid| bsuid.expose()));
    }

    fn template(&mut self, call: Option<&TemplateCall>) {
        self.0.update([u8::from(call.is_some())]);
        let Some(call) = call else { return };
        self.text(&call.name);
        self.text(&call.language);
        for parameters in [&call.header, &call.body] {
            self.number(parameters.len() as i64);
            for parameter in parameters {
                self.optional(parameter.name.as_deref());
                self.text(parameter.text.expose());
            }
        }
        self.number(call.buttons.len() as i64);
        for button in &call.buttons {
            self.number(button.index.into());
            self.text(&button.sub_type);
            self.text(button.text.expose());
        }
    }

    fn content(&mut self, content: &Content) {
        self.text(match content.kind {
            ContentKind::Text => "text",
            ContentKind::Template => "template",
            ContentKind::Typing => "typing",
            ContentKind::Read => "read",
            ContentKind::Unknown => "unknown",
        });
        self.optional(content.text.as_ref().map(|text| text.expose()));
        self.number(content.preview_url.into());
        self.template(content.template.as_ref());
        self.optional(content.reply_to.as_ref().map(|wamid| wamid.as_str()));
    }

    fn finish(self) -> u64 {
        let hash: [u8; 32] = self.0.finalize().into();
        hash[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

pub(super) fn of_send(command: &SendMessage) -> u64 {
    let mut canonical = Canonical(Sha256::new());
    canonical.text("send");
    canonical.text(command.organization_id.as_str());
    canonical.text(command.user_id.as_str());
    canonical.text(command.phone_number_id.as_str());
    canonical.recipient(&command.recipient);
    canonical.content(&command.content);
    canonical.text(match command.policy {
        SendPolicy::AtLeastOnce => "at_least_once",
        SendPolicy::AtMostOnce => "at_most_once",
    });
    canonical.text(match command.purpose {
        SendPurpose::OptIn => "opt_in",
        SendPurpose::Conversation => "conversation",
    });
    canonical.number(command.not_after.map_or(i64::MIN, |at| at.as_millis()));
    canonical.finish()
}

pub(super) fn of_consent(command: &ConsentCommand) -> u64 {
    let mut canonical = Canonical(Sha256::new());
    canonical.text("consent");
    canonical.text(command.organization_id.as_str());
    canonical.text(command.user_id.as_str());
    canonical.text(command.phone_number_id.as_str());
    canonical.recipient(&command.recipient);
    canonical.text(match command.action {
        ConsentAction::RequestOptIn => "request_opt_in",
        ConsentAction::Import => "import",
        ConsentAction::Revoke => "revoke",
        ConsentAction::AcknowledgeNotice => "acknowledge_notice",
        ConsentAction::Unknown => "unknown",
    });
    canonical.template(command.template.as_ref());
    canonical.optional(command.proof.as_ref().map(|proof| proof.expose()));
    canonical.finish()
}

#[cfg(test)]
mod tests {
    use crate::command::TemplateParameter;
    use crate::identity::Address;
    use crate::ids::{CommandId, PhoneNumber};
    use crate::time::Timestamp;

    use super::*;

    fn command() -> SendMessage {
        let value = |text: &str| TemplateParameter { name: None, text: text.into() };
        SendMessage {
            command_id: CommandId::derived("c"),
            organization_id: "acme".into(),
            user_id: "ada".into(),
            phone_number_id: "number".into(),
            recipient: Recipient {
                conversation_id: None,
                address: Address { phone: PhoneNumber::parse("491701234567").ok(), bsuid: None },
            },
            content: Content::template(TemplateCall {
                name: "greeting".to_owned(),
                language: "en".to_owned(),
                header: vec![value("a")],
                body: vec![value("b"), value("c")],
                buttons: vec![],
            }),
            policy: SendPolicy::AtMostOnce,
            purpose: SendPurpose::Conversation,
            issued_at: Timestamp(1),
            not_after: None,
        }
    }

    fn changed(change: impl FnOnce(&mut SendMessage)) -> u64 {
        let mut command = command();
        change(&mut command);
        command.digest()
    }

    #[test]
    fn a_repeat_has_the_same_digest_whenever_it_is_issued() {
        assert_eq!(changed(|command| command.issued_at = Timestamp(2)), command().digest());
    }

    #[test]
    fn the_digest_never_changes_between_versions() {
        // It is remembered between versions: a changed digest makes every repeat in flight a conflict.
        assert_eq!(command().digest(), 14_444_378_450_250_650_568);
    }

    #[test]
    fn any_other_content_has_another_digest() {
        let template = |change: fn(&mut TemplateCall)| {
            changed(|command| {
                if let Some(call) = &mut command.content.template {
                    change(call);
                }
            })
        };
        let digests = [
            command().digest(),
            changed(|command| command.organization_id = "other".into()),
            changed(|command| command.user_id = "eve".into()),
            changed(|command| command.phone_number_id = "other".into()),
            changed(|command| command.recipient.conversation_id = Some("x".into())),
            changed(|command| command.recipient.address.phone = None),
            changed(|command| command.content = Content::text("hi")),
            changed(|command| command.content = Content::text("ho")),
            changed(|command| command.content.reply_to = Some("wamid".into())),
            changed(|command| command.content.preview_url = true),
            changed(|command| command.policy = SendPolicy::AtLeastOnce),
            changed(|command| command.purpose = SendPurpose::OptIn),
            changed(|command| command.not_after = Some(Timestamp(0))),
            template(|call| call.language = "de".to_owned()),
            template(|call| call.header.clear()),
            template(|call| call.body.swap(0, 1)),
            template(|call| call.body.append(&mut call.header)),
            template(|call| call.body[0].name = Some("1".to_owned())),
        ];
        for (at, digest) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(digest), "change {at} makes no difference");
        }
    }
}
