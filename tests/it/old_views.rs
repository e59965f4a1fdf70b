//! Nothing is decided on an old view, on Kafka and Redis: the tracker, which owns the views, stands still.

use std::time::Duration;

use connector_demo::story::{Broken, World};
use connector_demo::{Backend, Fleet, story};
use connector_testkit::wait::still;
use connector_tests::programs;
use reqwest::Method;
use serde_json::{Value, json};

use crate::story::ONE_FLEET;

const WITHIN: Duration = Duration::from_secs(30);

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

async fn stopped(fleet: &Fleet, world: &mut World) -> Result<(), Broken> {
    let who = json!({ "phone_number_id": world.cast.phone_number_id, "phone": world.cast.contact_phone });
    let resolved = world.write(Method::POST, "/v1/conversations/resolve", &who).await?;
    world.conversation = resolved["conversation_id"].as_str().unwrap_or_default().to_owned();
    world.composer("free_form").await?;
    fleet.freeze("opt-in-tracker").unwrap_or_else(|error| panic!("{error}"));
    world.contact_sends(text("STOP")).await?;
    world.composer("opted_out").await?;
    let before = world.posts().await?;
    let command = world.send(text("One more thing")).await?;
    let seen = async || {
        let outcome = world.get(&format!("/v1/commands/{command}")).await.map_err(|Broken(why)| why);
        let posts = world.posts().await.map_err(|Broken(why)| why);
        (outcome.map(|outcome| outcome["state"].clone()), posts)
    };
    let (_, posts) = still("what must not leave", Duration::from_secs(3), WITHIN, seen).await;
    assert_eq!(posts, Ok(before), "nothing left after the STOP");
    fleet.thaw("opt-in-tracker").unwrap_or_else(|error| panic!("{error}"));
    let outcome = world.outcome(&command, "accepted").await?;
    assert_eq!((&outcome["state"], &outcome["reason"]), (&json!("rejected"), &json!("opted_out")));
    assert_eq!(world.posts().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_after_a_stop_does_not_leave_though_the_tracker_stands_still() {
    let _alone = ONE_FLEET.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(Backend::Kafka, &programs(), folder.path(), Duration::from_secs(600)).await;
    let mut fleet = fleet.unwrap_or_else(|error| panic!("{error}"));
    let cast = fleet.settings().cast();
    let mut told = String::new();
    let mut tell = |line: &str| told.push_str(&format!("{line}\n"));
    let held = story::play_first(3, cast.clone(), &mut tell, async |_| ()).await;
    assert_eq!(held, 3, "{told}");
    let mut world = World::new(cast);
    stopped(&fleet, &mut world).await.unwrap_or_else(|Broken(why)| panic!("{why}"));
    fleet.stop();
}
