//! History, list and paging follow the log, whatever WhatsApp's times say: they are whole seconds, and may be wrong.

use std::time::Duration;

use connector_contracts::{Topic, Topics};
use connector_ports::partition::partition_for;
use serde_json::{Value, json};

use crate::support::{Client, Installation, PARTITIONS, a_message, accepted, linked};

const CONVERSATION: &str = "/v1/conversations/k1-c";
const FAR: i64 = 32_503_680_000_000;

fn texts(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect()
}

async fn history(api: &Client, conversation: &str, count: usize) -> Value {
    let path = format!("{conversation}/messages?limit=100");
    api.until(&path, |seen| seen["messages"].as_array().is_some_and(|all| all.len() == count)).await
}

/// The whole history, page by page from its end.
async fn by_pages(api: &Client, conversation: &str, limit: usize) -> Vec<String> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let (status, page) = api.get(&format!("{conversation}/messages?limit={limit}{before}")).await;
        assert_eq!(status, 200, "{page}");
        all.splice(0..0, texts(&page).into_iter().map(str::to_owned));
        let Some(previous) = page["previous"].as_str() else { return all };
        before = format!("&before={previous}");
    }
}

#[tokio::test]
async fn messages_of_one_second_stand_in_the_order_of_the_log() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    installation
        .publish(vec![
            accepted("a", "k1-c", "one", "first", 1_000),
            a_message("a", "k1-c", "wamid.C", "second", 1_000),
            a_message("a", "k1-c", "wamid.B", "third", 1_000),
            a_message("a", "k1-c", "wamid.A", "fourth", 1_000),
        ])
        .await;
    let seen = history(&api, CONVERSATION, 4).await;
    assert_eq!(texts(&seen), ["first", "second", "third", "fourth"]);
    let (_, list) = api.get("/v1/conversations?user_id=ann").await;
    assert_eq!(list["conversations"][0]["last_message"]["text"], "fourth");
}

#[tokio::test]
async fn a_time_that_is_far_away_pins_nothing() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let ids = |list: &Value| {
        let ids = list["conversations"].as_array().unwrap().iter();
        ids.map(|one| one["conversation_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let list = async |last: &str| {
        let has = |list: &Value| {
            let mut all = list["conversations"].as_array().into_iter().flatten();
            all.any(|one| one["last_message"]["text"] == last)
        };
        api.until("/v1/conversations?user_id=ann", has).await
    };
    installation
        .publish_recorded(vec![
            (accepted("a", "k1-c", "one", "to c", 1_000), 1_000),
            (accepted("a", "k1-d", "two", "to d", 2_000), 2_000),
            (a_message("a", "k1-c", "wamid.2", "of the future", FAR), 3_000),
        ])
        .await;
    let seen = list("of the future").await;
    assert_eq!(
        (ids(&seen), &seen["conversations"][0]["last_activity"]),
        (vec!["k1-c".into(), "k1-d".into()], &json!(3_000))
    );

    installation.publish_recorded(vec![(a_message("a", "k1-c", "wamid.1", "of today", 4_000), 4_000)]).await;
    let seen = list("of today").await;
    assert_eq!(seen["conversations"][0]["last_activity"], 4_000);
    assert_eq!(texts(&history(&api, CONVERSATION, 3).await), ["to c", "of the future", "of today"]);

    installation.publish_recorded(vec![(a_message("a", "k1-d", "wamid.3", "of the past", 1), 5_000)]).await;
    let seen = list("of the past").await;
    assert_eq!(ids(&seen), ["k1-d", "k1-c"], "the latest of the log is first");
    assert_eq!(by_pages(&api, "/v1/conversations/k1-d", 1).await, ["to d", "of the past"]);
}

#[tokio::test]
async fn pages_fit_together_while_messages_of_one_second_arrive() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let text = |n: usize| format!("{n:02}");
    // 30 of two seconds, ids in no order, the seconds mixed.
    let message = |n: usize| {
        let id = format!("wamid.{:02}", n * 17 % 40);
        a_message("a", "k1-c", &id, &text(n), 1_000 + 1_000 * i64::from(n.is_multiple_of(3)))
    };
    installation.publish_recorded((0..30).map(|n| (message(n), 3_000)).collect()).await;
    history(&api, CONVERSATION, 30).await;
    let (mut seen, mut before, mut next) = (Vec::new(), String::new(), 30);
    loop {
        let (_, page) = api.get(&format!("{CONVERSATION}/messages?limit=7{before}")).await;
        seen.splice(0..0, texts(&page).into_iter().map(str::to_owned));
        let Some(previous) = page["previous"].as_str() else { break };
        before = format!("&before={previous}");
        installation.publish_recorded(vec![(message(next), 3_000)]).await;
        next += 1;
        history(&api, CONVERSATION, next).await;
    }
    assert_eq!(seen, (0..30).map(text).collect::<Vec<_>>());
    for wrong in ["1000:wamid.1", "x", "1:2", ""] {
        assert_eq!(api.get(&format!("{CONVERSATION}/messages?before={wrong}")).await.0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn linked_streams_are_merged_and_each_keeps_the_order_of_its_log() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let partition = |stream: &str| partition_for(stream.as_bytes(), PARTITIONS);
    let mut names = (0..).map(|n| format!("k1-alias{n}"));
    let alias = names.find(|name| partition(name) != partition("k1-c")).unwrap();
    let second = 1_000;
    let of = |stream: &str, id: &str, text: &str, recorded: i64| (a_message("a", stream, id, text, second), recorded);
    installation
        .publish_recorded(vec![
            (accepted("a", "k1-c", "one", "begin", second), 5),
            of(&alias, "wamid.9", "alias 1", 10),
            of(&alias, "wamid.8", "alias 2", 30),
            // A clock of ours that was behind, and one that was far ahead.
            of(&alias, "wamid.7", "alias 3", 20),
            of(&alias, "wamid.6", "alias 4", FAR),
            of("k1-c", "wamid.5", "own 1", 20),
            of("k1-c", "wamid.4", "own 2", 25),
            (linked("a", &alias, "k1-c", 40), 40),
            of("k1-c", "wamid.3", "own 3", 50),
            of("k1-c", "wamid.2", "own 4", 50),
        ])
        .await;
    let expected = ["begin", "alias 1", "own 1", "own 2", "alias 2", "alias 3", "alias 4", "own 3", "own 4"];
    for path in [CONVERSATION.to_owned(), format!("/v1/conversations/{alias}")] {
        assert_eq!(texts(&history(&api, &path, expected.len()).await), expected);
        for limit in [1, 2, 4] {
            assert_eq!(by_pages(&api, &path, limit).await, expected, "pages of {limit}");
        }
    }
    let (_, list) = api.get("/v1/conversations?user_id=ann").await;
    assert_eq!(list["conversations"][0]["last_message"]["text"], "own 4");
}

#[tokio::test]
async fn a_message_that_comes_again_is_shown_once_and_counted_once() {
    let installation = Installation::start().await;
    let api = installation.api("token-a");
    let again = |cause_id: &str| {
        let (event, mut cause) = a_message("a", "k1-c", "wamid.1", "hello", 2_000);
        cause.cause_id = cause_id.to_owned();
        (event, cause)
    };
    let path = "/v1/conversations/k1-c?user_id=ann";
    installation
        .publish(vec![
            accepted("a", "k1-c", "one", "begin", 1_000),
            again("standby/wamid.1"),
            a_message("a", "k1-c", "wamid.1", "hello", 2_000),
            a_message("a", "k1-c", "wamid.2", "more", 2_000),
        ])
        .await;
    let seen = api.until(path, |seen| seen["conversation"]["last_message"]["text"] == "more").await;
    assert_eq!(seen["conversation"]["unread"], 2);
    // Once read, a copy makes nothing unread.
    installation.publish(vec![accepted("a", "k1-c", "two", "answer", 3_000), again("repeated/wamid.1")]).await;
    let all = |seen: &Value| seen["events"].as_array().is_some_and(|events| events.len() == 6);
    api.until(&format!("{CONVERSATION}/events?limit=100"), all).await;
    assert_eq!(api.get(path).await.1["conversation"]["unread"], 0);
    assert_eq!(texts(&history(&api, CONVERSATION, 4).await), ["begin", "hello", "more", "answer"]);
}

/// It need not be shorter than the one before, and nobody starts anything again.
#[tokio::test]
async fn a_log_made_anew_under_the_read_model_is_read_from_its_beginning() {
    let (installation, log) = Installation::in_memory().await;
    let api = installation.api("token-a");
    installation.publish(vec![accepted("a", "k1-c", "one", "before", 1_000)]).await;
    assert_eq!(texts(&history(&api, CONVERSATION, 1).await), ["before"]);
    log.store().make_anew(&Topics::new("t").name(Topic::ConversationEvents).into());
    installation
        .publish(vec![
            a_message("a", "k1-c", "wamid.A", "anew", 2_000),
            a_message("a", "k1-c", "wamid.B", "and more", 3_000),
            a_message("a", "k1-c", "wamid.C", "and more than that", 4_000),
        ])
        .await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(40)).await;
    tokio::time::resume();
    let whole =
        |seen: &Value| seen["messages"].as_array().is_some_and(|all| all.len() == 3 && all[0]["text"] == "anew");
    api.until(&format!("{CONVERSATION}/messages?limit=100"), whole).await;
}
