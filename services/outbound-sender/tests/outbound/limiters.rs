//! Limiters that do not answer while the rest of the gate does: messages leave all the same, and not faster than the limit.

use std::time::Duration;

use connector_domain::command::SendMessage;
use connector_domain::time::Timestamp;
use connector_simulated::SimWorld;

use crate::scene::{NUMBER, SECOND, Scene, ended, text, text_of_second};

/// A POST needs 10 to 110 ms to arrive.
const WAY: Duration = Duration::from_millis(100);

fn at(scene: &Scene, number: &str) -> Vec<Timestamp> {
    let posts = scene.world.whatsapp_side().posts();
    posts.iter().filter(|post| post.outbound.phone_number_id == number.into()).map(|post| post.at).collect()
}

#[tokio::test(start_paused = true)]
async fn without_a_limiter_all_workers_together_keep_the_limit_of_a_number() {
    for instances in [1, 2] {
        let mut scene = Scene::new(50).await;
        (scene.config.number_rate, scene.config.number_burst, scene.instances) = (10, 2, instances);
        scene.second(4).await;
        // Only the first number's limiter is away.
        scene.world.set_limiters_away(Some(&format!("number:{NUMBER}")));
        let mut commands: Vec<_> = (0..100).map(|i| text(&format!("{i}"), i % 10)).collect();
        commands.extend((0..100).map(|i| text_of_second(&format!("s{i}"), i % 4)));
        scene.publish(&commands).await;
        let run = async |world: SimWorld| {
            while at(&scene, NUMBER).len() < 20 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Of several workers the last one that looked says it.
            let page = scene.metrics.encode();
            assert!(page.contains("connector_outbound_locally_limited_numbers 1"), "it shows");
            ended(&world, &commands).await;
        };
        scene.run(run).await;
        let first = at(&scene, NUMBER);
        assert_eq!(first.len(), 100);
        for from in &first {
            let within =
                first.iter().filter(|at| **at >= *from && at.since(*from) < Duration::from_secs(1) - WAY).count();
            assert!(within <= 12, "{within} in less than a second: {instances} workers");
        }
        let took = first[99].since(first[0]);
        assert!(took < Duration::from_secs(13), "the limit is used: {took:?}, {instances} workers");
        let second = at(&scene, SECOND);
        assert!(second[99].since(second[0]) < Duration::from_secs(13), "the other one is limited as ever");
        assert!(scene.accepted_posts().values().all(|posts| *posts == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn without_limiters_a_pair_keeps_its_limit_and_afterwards_the_gate_counts_again() {
    let mut scene = Scene::new(51).await;
    (scene.config.pair_interval, scene.config.pair_burst) = (Duration::from_secs(6), 5);
    scene.world.set_limiters_away(Some(""));
    let commands: Vec<_> = (0..10).map(|i| text(&format!("{i}"), 1)).collect();
    scene.publish(&commands).await;
    let run = async |world: SimWorld| {
        while at(&scene, NUMBER).len() < 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        world.set_limiters_away(None);
        ended(&world, &commands).await;
        let page = scene.metrics.encode();
        assert!(page.contains("connector_outbound_locally_limited_numbers 0"), "it is over");
    };
    scene.run(run).await;
    let posts = at(&scene, NUMBER);
    assert_eq!(posts.len(), 10);
    for two in posts.windows(2) {
        assert!(two[1].since(two[0]) + WAY >= Duration::from_secs(6), "what was taken before is not known: {posts:?}");
    }
    assert!(posts[9].since(posts[0]) < Duration::from_secs(60), "{posts:?}");
    let order: Vec<_> = scene.posts().into_iter().map(|(text, _)| text).collect();
    assert_eq!(order, (0..10).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// How long it takes from the first message that leaves to the last.
async fn all_leave(scene: &Scene, commands: &[SendMessage]) -> Duration {
    scene.publish(commands).await;
    scene.run_to_the_end(commands).await;
    let posts = at(scene, NUMBER);
    assert_eq!(posts.len(), commands.len());
    posts[posts.len() - 1].since(posts[0])
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_number_has_taken_nothing_from_the_pair() {
    let mut scene = Scene::new(53).await;
    (scene.config.number_rate, scene.config.number_burst) = (1, 1);
    (scene.config.pair_interval, scene.config.pair_burst) = (Duration::from_secs(300), 1);
    // All at once, each to somebody else.
    let commands: Vec<_> = (0..10).map(|i| text(&format!("{i}"), i)).collect();
    let took = all_leave(&scene, &commands).await;
    assert!(took < Duration::from_secs(30), "at the number's pace: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_pair_has_taken_nothing_from_the_number() {
    let mut scene = Scene::new(54).await;
    (scene.config.number_rate, scene.config.number_burst) = (1, 7);
    (scene.config.pair_interval, scene.config.pair_burst) = (Duration::from_secs(2), 1);
    // Two to each of three people: the second of each waits for its pair. Then one to somebody else.
    let mut commands: Vec<_> = (0..6).map(|i| text(&format!("{i}"), i % 3)).collect();
    commands.push(text("6", 3));
    // When the pairs are free again, so is the number: there was room for seven at once.
    let took = all_leave(&scene, &commands).await;
    assert!(took < Duration::from_millis(2_600), "at the pace of the pairs: {took:?}");
}
