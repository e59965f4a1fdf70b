//! The simulated WhatsApp: what contacts do, what goes wrong there, and its ledger of every POST.

use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::Outcome;

/// How long the simulator may be away: it is never harmed, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rows of one page of the ledger.
const PAGE: usize = 5_000;

/// One POST of a message, as WhatsApp saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// When it was decided upon, in milliseconds since the epoch.
    pub at_ms: i64,
    /// To whom.
    pub to: String,
    /// The attempt (`biz_opaque_callback_data`).
    pub attempt: String,
    /// The text, by which a test knows its command.
    pub text: String,
    /// Whether WhatsApp has the message, whatever was answered.
    pub accepted: bool,
}

/// The simulator's control API.
#[derive(Clone, Debug)]
pub struct WhatsAppSide {
    client: Client,
    base: String,
}

impl WhatsAppSide {
    /// The simulator at this URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { client: Client::new(), base: format!("{url}/simulator") }
    }

    /// One request of the control API.
    ///
    /// # Errors
    /// When the simulator refuses it, or does not answer for half a minute.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut request = self.client.request(method.clone(), format!("{}{path}", self.base)).timeout(PATIENCE);
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer.json().await?),
                Ok(answer) => return Err(format!("the simulator answers {} to {path}", answer.status()).into()),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A contact writes to a number.
    ///
    /// # Errors
    /// As [`WhatsAppSide::ask`].
    pub async fn contact_writes(&self, wa_id: &str, number: &str, text: &str) -> Outcome<()> {
        let message = json!({ "type": "text", "text": text, "phone_number_id": number });
        self.ask(Method::POST, &format!("/contacts/{wa_id}/messages"), Some(&message)).await?;
        Ok(())
    }

    /// Lets things go wrong from now on: rules of the simulator's `faults.rs`.
    ///
    /// # Errors
    /// As [`WhatsAppSide::ask`].
    pub async fn add_faults(&self, rules: &Value) -> Outcome<()> {
        self.ask(Method::POST, "/faults", Some(rules)).await?;
        Ok(())
    }

    /// Lets nothing go wrong any more.
    ///
    /// # Errors
    /// As [`WhatsAppSide::ask`].
    pub async fn clear_faults(&self) -> Outcome<()> {
        self.ask(Method::DELETE, "/faults", None).await?;
        Ok(())
    }

    /// Every POST of a message so far, in order.
    ///
    /// # Errors
    /// As [`WhatsAppSide::ask`].
    pub async fn posts(&self) -> Outcome<Vec<Post>> {
        let (mut posts, mut since) = (Vec::new(), 0);
        loop {
            let page = self.ask(Method::GET, &format!("/ledger?since={since}&limit={PAGE}"), None).await?;
            let rows = page["posts"].as_array().map(Vec::as_slice).unwrap_or_default();
            posts.extend(rows.iter().filter(|row| row["type"] == "text" || row["type"] == "template").map(post));
            if rows.len() < PAGE {
                return Ok(posts);
            }
            since = page["next"].as_u64().ok_or("a page of the ledger without next")?;
        }
    }
}

fn post(row: &Value) -> Post {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    Post {
        at_ms: row["at_ms"].as_i64().unwrap_or_default(),
        to: text("to"),
        attempt: text("biz_opaque_callback_data"),
        text: text("text"),
        accepted: row["outcome"] == "accepted",
    }
}
