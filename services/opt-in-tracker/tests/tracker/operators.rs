//! What operators do about consent: withdraw it, bring it along from elsewhere; and the trail that stays of who did what and when.

use std::time::Duration;

use connector_domain::command::ConsentAction;
use connector_domain::consent::{ConsentStatus, Intent};
use connector_domain::event::{Event, Recorded};
use connector_domain::ids::CommandId;
use connector_domain::time::Timestamp;
use connector_simulated::SimWorld;
use connector_testkit::wait;

use crate::scene::{
    LIMIT, append, command_by, consent, conversation, counts, history, platform, play, prepared, until, write,
};

/// Who did what in the conversation, under which command and when: what the log keeps of consent.
fn trail(world: &SimWorld) -> Vec<(String, String, Option<CommandId>, Timestamp)> {
    let stream = conversation(world);
    let line = |Recorded { envelope, event }: Recorded| {
        let who = match event {
            Event::OptInRequested(e) => e.user_id.to_string(),
            Event::ConsentImported(e) => format!("{}: {}", e.by, e.proof.expose()),
            Event::ConsentRevoked(e) => e.by.to_string(),
            Event::MessageRejected(e) => format!("{}: {} {}", e.user_id, e.reason, e.field),
            Event::OptInAccepted(e) => format!("by {}", e.how),
            Event::OptedOut(e) => format!("by {}", e.how),
            Event::OptedBackIn(_) => "the contact".to_owned(),
            _ => return None,
        };
        Some((envelope.event_type, who, envelope.command_id, envelope.occurred_at))
    };
    history(world).into_iter().filter(|recorded| recorded.envelope.stream_id == stream).filter_map(line).collect()
}

async fn order(world: &SimWorld, name: &str, by: &str, action: ConsentAction, proof: Option<&str>) -> Timestamp {
    append(world, vec![command_by(world, name, by, action, proof)]).await;
    platform(world).clock.now()
}

#[tokio::test(start_paused = true)]
async fn an_operator_withdraws_consent_once_and_only_the_contact_gives_it_again() {
    let world = play(async |world: SimWorld| {
        use ConsentAction::{Import, RequestOptIn, Revoke};
        prepared(&world).await;
        order(&world, "form", "ada", Import, Some("signed form 7")).await;
        until(&world, "OptInAccepted", 1).await;
        // An operator needs no contact of their own to withdraw.
        order(&world, "withdraw", "operator", Revoke, None).await;
        until(&world, "OptedOut", 1).await;
        assert_eq!(consent(&world).status, ConsentStatus::OptedOut);
        order(&world, "form again", "ada", Import, Some("signed form 8")).await;
        order(&world, "ask", "ada", RequestOptIn, None).await;
        until(&world, "MessageRejected", 2).await;
        order(&world, "withdraw again", "operator", Revoke, None).await;
        until(&world, "ConsentRevoked", 2).await;
        write(&world, "start", Intent::Start).await;
        until(&world, "OptedBackIn", 1).await;
    })
    .await;
    assert_eq!(consent(&world).status, ConsentStatus::Accepted);
    let trail = trail(&world);
    let id = |name: &str| Some(CommandId::derived(name));
    let told: Vec<_> = trail.iter().map(|(what, who, command, _)| (what.as_str(), who.as_str(), *command)).collect();
    assert_eq!(
        told[..3],
        [
            ("ConsentImported", "ada: signed form 7", id("form")),
            ("OptInAccepted", "by import", id("form")),
            ("ConsentRevoked", "operator", id("withdraw")),
        ]
    );
    assert!(told.contains(&("OptedOut", "by revoked", id("withdraw"))));
    assert!(told.contains(&("MessageRejected", "ada: opted_out ", id("form again"))));
    assert!(told.contains(&("MessageRejected", "ada: opted_out ", id("ask"))));
    assert!(told.contains(&("ConsentRevoked", "operator", id("withdraw again"))));
    let announced = |name: &str| told.iter().filter(|(what, ..)| *what == name).count();
    assert_eq!((announced("OptedOut"), announced("OptedBackIn")), (1, 1), "said once: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_log_says_when_and_no_import_is_without_its_proof() {
    let world = play(async |world: SimWorld| {
        use ConsentAction::Import;
        prepared(&world).await;
        for (n, proof) in [None, Some(""), Some("  ")].into_iter().enumerate() {
            order(&world, &format!("no proof {n}"), "ada", Import, proof).await;
        }
        until(&world, "MessageRejected", 3).await;
        // Time passes, and nothing more comes of them.
        let refused = async || counts(&world)["MessageRejected"];
        assert_eq!(wait::still("what is refused", Duration::from_secs(300), LIMIT, refused).await, 3);
        let issued = order(&world, "form", "ada", Import, Some("paper form, shop 12")).await;
        until(&world, "OptInAccepted", 1).await;
        let trail = trail(&world);
        let when = |what: &str| trail.iter().find(|(name, ..)| name == what).map(|(.., at)| *at).expect("it is there");
        assert!(when("ConsentImported") >= issued && when("OptInAccepted") >= issued, "{trail:?}");
        // Nobody without the contact imports anything, and who has accepted needs no import.
        order(&world, "stranger", "eve", Import, Some("none")).await;
        order(&world, "needless", "ada", Import, Some("paper form, shop 12")).await;
        until(&world, "MessageRejected", 5).await;
    })
    .await;
    let refused: Vec<_> = trail(&world).into_iter().filter(|(what, ..)| what == "MessageRejected").collect();
    let whys: Vec<_> = refused.iter().map(|(_, why, ..)| why.as_str()).collect();
    assert_eq!(whys[..3], ["ada: invalid proof"; 3]);
    assert!(whys.contains(&"eve: not_enabled user_id") && whys.contains(&"ada: opt_in_not_needed action"), "{whys:?}");
}
