//! Views that do not answer while the rest of the gate does: what needs them waits, and nothing else.

use std::time::Duration;

use connector_domain::event::Event;
use connector_runtime::situation::partition_of;
use connector_simulated::SimWorld;
use connector_testkit::wait::{still, until};

use crate::scene::{PARTITIONS, Scene, conversation, ended, events, keys, text};

const WITHIN: Duration = Duration::from_secs(600);

fn admitted(world: &SimWorld) -> usize {
    events(world).iter().filter(|recorded| matches!(recorded.event, Event::MessageAccepted(_))).count()
}

/// Two partitions: one has the views of the user and of some conversations, the other one those of the rest.
#[tokio::test(start_paused = true)]
async fn conversations_whose_view_does_not_answer_wait_and_delay_nobody() {
    let mut scene = Scene::new(60).await;
    // Slow enough that all are admitted before many have left.
    (scene.config.number_rate, scene.config.number_burst) = (2, 1);
    let home = partition_of(&keys().user(&"acme".into(), &"ada".into()), PARTITIONS);
    let away = 1 - home;
    let is_away = |n: usize| partition_of(&conversation(n), PARTITIONS) == away;
    let commands: Vec<_> = (0..60).map(|i| text(&format!("{i}"), i % 10)).collect();
    let waiting = (0..60).filter(|i| is_away(i % 10)).count();
    assert!((12..=48).contains(&waiting), "conversations of both kinds");
    scene.publish(&commands).await;
    let posted = |of_away: bool| {
        let number = |text: &str| text.parse::<usize>().map_or(0, |i| i % 10);
        scene.posts().iter().filter(|(text, _)| is_away(number(text)) == of_away).count()
    };
    let run = async |world: SimWorld| {
        until("all are admitted", WITHIN, async || (admitted(&world) == 60).then_some(())).await;
        world.set_views_away(Some(away));
        let there = 60 - waiting;
        let moment = tokio::time::Instant::now();
        until("the others leave", WITHIN, async || (posted(false) == there).then_some(())).await;
        let took = moment.elapsed();
        assert!(took < Duration::from_secs(there as u64 / 2 + 5), "at the number's pace: {took:?}");
        let left = still("what needs the views", Duration::from_secs(60), WITHIN, async || posted(true)).await;
        assert!(left < waiting, "some had not left before");
        assert!(scene.metrics.encode().contains("connector_outbound_views_away 1\n"), "it shows");
        world.set_views_away(None);
        ended(&world, &commands).await;
        assert!(scene.metrics.encode().contains("connector_outbound_views_away 0\n"), "it is over");
    };
    scene.run(run).await;
    assert_eq!(scene.accepted_posts().len(), 60);
    assert!(scene.accepted_posts().values().all(|posts| *posts == 1));
    for n in 0..10 {
        let texts = scene.posts().into_iter().map(|(text, _)| text.parse::<usize>().unwrap_or_default());
        let order: Vec<_> = texts.filter(|i| i % 10 == n).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}
