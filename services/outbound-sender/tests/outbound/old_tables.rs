//! Nothing leaves on an old table (R2): what the directory says about a number, and the catalogue about a template, counts from the moment it
//! stands there, also for a process that reads these topics late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::Topic;
use connector_domain::command::SendMessage;
use connector_domain::event::Event;
use connector_domain::outcome::GraphError;
use connector_domain::template::Template;
use connector_ports::log::{
    Identity, Isolation, LogError, Membership, Offset, Polled, Position, Start, Subscription, TopicFacts, TopicName,
    TopicPartition, TopicSpec,
};
use connector_ports::{Appender, Log, Reader, Transactor};
use connector_simulated::{BEGINNING, Reaction, SimWorld};
use connector_testkit::wait::{still, until};

use crate::scene::{NUMBER, Scene, ended, events, of, text};
use crate::withdrawn::{call, template};

const WITHIN: Duration = Duration::from_secs(600);

/// A log whose readers of tables bring nothing as long as they are frozen. Whoever follows the log beside its views reads on.
pub(crate) struct Frozen {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) frozen: Arc<AtomicBool>,
}

#[async_trait]
impl Log for Frozen {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError> {
        self.log.subscribe(subscription).await
    }

    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        let tables = [Topic::Directory, Topic::Templates].map(|topic| TopicName::from(topic.name("")));
        let of_table = partitions.iter().any(|(partition, _)| tables.contains(&partition.topic));
        let reader = self.log.assign(partitions, isolation).await?;
        let frozen = self.frozen.clone();
        Ok(if of_table { Box::new(FrozenReader { reader: reader.into(), frozen, held: None }) } else { reader })
    }

    async fn follow(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        self.log.follow(partitions, isolation).await
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.log.appender().await
    }

    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        self.log.transactor(id).await
    }

    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        self.log.end_offset(partition, isolation).await
    }

    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError> {
        self.log.begin_offset(partition).await
    }

    async fn identity(&self, partition: &TopicPartition) -> Result<Identity, LogError> {
        self.log.identity(partition).await
    }

    async fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.log.positions(group, partitions).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        self.log.topic(name).await
    }

    async fn topic_settings(&self, name: &TopicName) -> Result<BTreeMap<String, String>, LogError> {
        self.log.topic_settings(name).await
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.log.create_topic(spec).await
    }
}

struct FrozenReader {
    /// A reader need not be `Sync`; [`Reader::membership`] borrows this one shared.
    reader: tokio::sync::Mutex<Box<dyn Reader>>,
    frozen: Arc<AtomicBool>,
    /// What came while it froze.
    held: Option<Polled>,
}

#[async_trait]
impl Reader for FrozenReader {
    async fn poll(&mut self, wait: Duration, max: usize) -> Result<Polled, LogError> {
        let brief = wait.min(Duration::from_millis(100));
        if self.frozen.load(Ordering::Relaxed) {
            tokio::time::sleep(brief).await;
            return Ok(Polled::Idle);
        }
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let polled = self.reader.get_mut().poll(brief, max).await?;
        if self.frozen.load(Ordering::Relaxed) {
            self.held = Some(polled);
            return Ok(Polled::Idle);
        }
        Ok(polled)
    }

    async fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), LogError> {
        self.reader.get_mut().seek(partition, to).await
    }

    async fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.reader.get_mut().pause(partitions).await
    }

    async fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.reader.get_mut().resume(partitions).await
    }

    async fn commit(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.reader.get_mut().commit(positions).await
    }

    async fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.reader.get_mut().release(partitions).await
    }

    async fn membership(&self) -> Result<Membership, LogError> {
        self.reader.lock().await.membership().await
    }

    async fn close(self: Box<Self>) {
        self.reader.into_inner().close().await;
    }
}

/// Why a command did not leave, or `sent`.
fn end(scene: &Scene, command: &SendMessage) -> Option<String> {
    of(&scene.events(), command.command_id).into_iter().find_map(|recorded| match recorded.event {
        Event::MessageFailed(failed) => Some(failed.reason),
        Event::MessageRejected(rejected) => Some(rejected.reason),
        Event::MessageSent(_) => Some("sent".to_owned()),
        _ => None,
    })
}

/// Both commands are queued, one behind the other, and WhatsApp holds up the first one twice. The tables freeze, and something happens of which
/// they do not know: nothing leaves. Then they read on. How the two ended.
async fn behind(scene: &mut Scene, commands: [SendMessage; 2], happens: impl AsyncFn(&Scene)) -> [Option<String>; 2] {
    let frozen = Arc::new(AtomicBool::new(false));
    scene.frozen = Some(frozen.clone());
    for number in 0..2 {
        let error = GraphError { code: 131_056, subcode: None };
        scene.world.whatsapp_side().script(number, Reaction::Refuse(400, error));
    }
    scene.publish(&commands).await;
    let scene = &*scene;
    scene
        .run(async |world: SimWorld| {
            let queued = async || {
                let accepted = commands.iter().all(|command| !scene.story(command).is_empty());
                (accepted && scene.posts().len() == 2).then_some(())
            };
            until("both to be queued and the first to be held up", WITHIN, queued).await;
            frozen.store(true, Ordering::Relaxed);
            happens(scene).await;
            let silent = async || (scene.posts().len(), events(&world).len());
            still("what must not leave", Duration::from_secs(120), WITHIN, silent).await;
            assert_eq!(scene.posts().len(), 2, "decided on an old table");
            assert_eq!(scene.story(&commands[1]), ["MessageAccepted"], "neither sent nor refused on an old table");
            frozen.store(false, Ordering::Relaxed);
            ended(&world, &commands).await;
        })
        .await;
    assert_eq!(scene.posts().len(), 2);
    commands.each_ref().map(|command| end(scene, command))
}

/// The number belongs to another organization from now on.
async fn moved(scene: &Scene) {
    scene.number("other", NUMBER).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_from_a_number_that_moved_while_the_table_of_numbers_is_behind() {
    let mut scene = Scene::new(90).await;
    let ends = behind(&mut scene, [text("a", 1), text("b", 1)], moved).await;
    assert_eq!(ends, [Some("not_enabled".to_owned()), Some("not_enabled".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_turn_comes_while_the_table_is_behind_is_written_down_and_does_not_leave() {
    let mut scene = Scene::new(91).await;
    // Late is late, however the tables stand: then it is the second one's turn, for the first time.
    let first = SendMessage { not_after: Some(BEGINNING + Duration::from_secs(60)), ..text("a", 1) };
    let ends = behind(&mut scene, [first, text("b", 1)], moved).await;
    assert_eq!(ends, [Some("expired".to_owned()), Some("not_enabled".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn no_template_leaves_that_was_paused_while_the_catalogue_is_behind() {
    let mut scene = Scene::new(92).await;
    let reminder = template("reminder", "UTILITY");
    let key = Template::key(&reminder.waba_id, &reminder.name, "en");
    scene.write(Topic::Templates, &key, &reminder).await;
    let paused = Template { status: "PAUSED".to_owned(), ..reminder };
    let commands = [call("reminder", text("a", 1)), call("reminder", text("b", 1))];
    let ends = behind(&mut scene, commands, async |scene| scene.write(Topic::Templates, &key, &paused).await).await;
    assert_eq!(ends, [Some("template_not_sendable".to_owned()), Some("template_not_sendable".to_owned())]);
}
