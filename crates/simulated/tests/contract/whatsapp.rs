//! WhatsApp's own side.

use connector_domain::command::Content;
use connector_domain::identity::Address;
use connector_domain::ids::AttemptId;
use connector_domain::outcome::{Answer, BytesLeft, GraphError, Transport};
use connector_ports::whatsapp::Outbound;
use connector_simulated::{Fault, Plan, Reaction, SimWorld, Weather, When};

fn outbound(command: &str) -> Outbound {
    Outbound {
        phone_number_id: "1".into(),
        address: Address::default(),
        content: Content::text(command),
        attempt_id: AttemptId::derived(command),
    }
}

#[tokio::test(start_paused = true)]
async fn the_ledger_knows_what_the_sender_does_not() {
    let world = SimWorld::new(1);
    let side = world.whatsapp_side();
    side.script(1, Reaction::AcceptThenDrop(Transport::Reset));
    side.script(2, Reaction::LostOnTheWay(Transport::Reset));
    side.script(3, Reaction::NoConnection);
    side.script(4, Reaction::Refuse(400, GraphError { code: 131_047, subcode: None }));
    let whatsapp = world.whatsapp();
    let mut seen = Vec::new();
    for command in ["taken", "dropped", "lost", "unreachable", "refused"] {
        seen.push(whatsapp.send(&outbound(command)).await);
    }
    assert!(matches!(&seen[0].answer, Answer::Http { status: 200, wamid: Some(_), error: None, .. }));
    assert_eq!(seen[1], seen[2], "the sender cannot tell them apart");
    assert_eq!((seen[1].left, &seen[1].answer), (BytesLeft::Maybe, &Answer::Transport(Transport::Reset)));
    assert_eq!((seen[3].left, &seen[3].answer), (BytesLeft::No, &Answer::Transport(Transport::Connect)));
    assert!(matches!(&seen[4].answer, Answer::Http { status: 400, error: Some(_), wamid: None, .. }));
    let accepted: Vec<bool> = side.posts().iter().map(|post| post.accepted).collect();
    assert_eq!(accepted, [true, true, false], "those that arrived");
}

#[tokio::test(start_paused = true)]
async fn a_crash_behind_the_post_leaves_it_in_the_ledger() {
    let world = SimWorld::new(1).with(Plan::one(0, Fault::Crash(When::After)));
    let (whatsapp, one) = (world.whatsapp(), outbound("one"));
    tokio::select! {
        biased;
        exchange = whatsapp.send(&one) => panic!("a dead process gets no answer: {exchange:?}"),
        () = world.crashed() => {}
    }
    world.restart();
    world.whatsapp().send(&one).await;
    let side = world.whatsapp_side();
    assert_eq!(side.posts_per_attempt()[&AttemptId::derived("one")], 2, "a blind repeat is seen");
    let text =
        |outbound: &Outbound| outbound.content.text.as_ref().map_or_else(String::new, |text| text.expose().to_owned());
    assert_eq!(side.posts_per_command(text)["one"], 2);
}

#[tokio::test(start_paused = true)]
async fn the_weather_follows_the_seed() {
    let run = async |seed| {
        let world = SimWorld::new(seed);
        world.whatsapp_side().set_weather(Weather(vec![(300, Reaction::AcceptThenDrop(Transport::Timeout))]));
        let mut dropped = Vec::new();
        for n in 0..50 {
            let exchange = world.whatsapp().send(&outbound(&n.to_string())).await;
            dropped.push(exchange.answer == Answer::Transport(Transport::Timeout));
        }
        dropped
    };
    let (one, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert!((5..=25).contains(&one.iter().filter(|dropped| **dropped).count()), "about three in ten");
}
