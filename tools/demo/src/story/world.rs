//! Both sides of the story over HTTP: the user's, through the conversation API, and the contact's, through the simulator.

use std::time::{Duration, Instant};

use crate::settings::{OPERATOR_TOKEN, ORGANIZATION};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// Why a step did not hold.
#[derive(Debug)]
pub struct Broken(pub String);

/// How long anything may take that the story waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails a step unless something holds.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(otherwise())) }
}

/// Where the product and the simulator are, and who plays.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The conversation API.
    pub api: String,
    /// A bearer token of the organization.
    pub token: String,
    /// The simulator.
    pub simulator: String,
    /// The business number.
    pub phone_number_id: String,
    /// Its account.
    pub waba_id: String,
    /// The contact's `wa_id`.
    pub contact_phone: String,
}

/// The cast with its means.
pub struct World {
    /// Who plays, and where.
    pub cast: Cast,
    client: Client,
    /// The user who writes.
    pub user: String,
    /// The conversation with the contact, once it is known.
    pub conversation: String,
}

impl World {
    /// A stage on which nothing has happened.
    #[must_use]
    pub fn new(cast: Cast) -> Self {
        Self { cast, client: Client::new(), user: "anna".to_owned(), conversation: String::new() }
    }

    /// Calls until there is an answer: a service that was killed is started again meanwhile. Its status and body.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn call(
        &self,
        method: Method,
        url: String,
        body: Option<&Value>,
        token: bool,
    ) -> Result<(u16, Value), Broken> {
        self.call_as(method, url, body, token.then_some(self.cast.token.as_str())).await
    }

    async fn call_as(
        &self,
        method: Method,
        url: String,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<(u16, Value), Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut request = self.client.request(method.clone(), &url).timeout(Duration::from_secs(30));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let seen = match request.send().await {
                Ok(answer) if answer.status().as_u16() != 503 => {
                    let status = answer.status().as_u16();
                    let text = answer.text().await.unwrap_or_default();
                    return Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)));
                }
                Ok(_) => "it answers 503".to_owned(),
                Err(error) => error.without_url().to_string(),
            };
            if Instant::now() > deadline {
                return Err(Broken(format!("no answer in {PATIENCE:?}: {seen}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads from the conversation API.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn get(&self, path: &str) -> Result<Value, Broken> {
        Ok(self.call(Method::GET, format!("{}{path}", self.cast.api), None, true).await?.1)
    }

    /// A write that must be accepted.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn write(&self, method: Method, path: &str, body: &Value) -> Result<Value, Broken> {
        let (status, answer) = self.call(method, format!("{}{path}", self.cast.api), Some(body), true).await?;
        ensure((200..300).contains(&status), || format!("{path} answered {status}: {answer}"))?;
        Ok(answer)
    }

    /// Assigns the business number to the organization.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn assign_number(&self) -> Result<(), Broken> {
        let url = format!("{}/v1/directory/numbers/{}", self.cast.api, self.cast.phone_number_id);
        let body = json!({ "organization_id": ORGANIZATION, "waba_id": self.cast.waba_id });
        let (status, answer) = self.call_as(Method::PUT, url, Some(&body), Some(OPERATOR_TOKEN)).await?;
        ensure(status == 202, || format!("the number is not assigned: {status} {answer}"))
    }

    /// The contact's side.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn simulate(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Broken> {
        let url = format!("{}/simulator{path}", self.cast.simulator);
        let (status, answer) = self.call(method, url, body, false).await?;
        ensure((200..300).contains(&status), || format!("the simulator answered {status} to {path}: {answer}"))?;
        Ok(answer)
    }

    /// Asks again and again until there is something.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn until<T>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> Result<Option<T>, Broken>,
    ) -> Result<T, Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ask().await? {
                return Ok(found);
            }
            ensure(Instant::now() < deadline, || format!("waited {PATIENCE:?} in vain for {what}"))?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a command; its id.
    async fn command(&self, path: &str, body: &Value) -> Result<String, Broken> {
        let answer = self.write(Method::POST, path, body).await?;
        let id = answer["command_id"].as_str().map(str::to_owned);
        id.ok_or_else(|| Broken(format!("{path} answered without a command id")))
    }

    fn addressed(&self, mut body: Value) -> Value {
        body["user_id"] = json!(self.user);
        body["phone_number_id"] = json!(self.cast.phone_number_id);
        body["recipient"] = json!({ "phone": self.cast.contact_phone });
        body
    }

    /// The user sends something.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn send(&self, content: Value) -> Result<String, Broken> {
        self.command("/v1/commands/send", &self.addressed(json!({ "content": content }))).await
    }

    /// The user asks for something about consent.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn consent(&self, action: &str) -> Result<String, Broken> {
        self.command("/v1/commands/consent", &self.addressed(json!({ "action": action }))).await
    }

    /// What became of a command, once it is as far as `until`.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn outcome(&self, command: &str, until: &str) -> Result<Value, Broken> {
        let path = format!("/v1/commands/{command}?wait=10s&until={until}");
        let far = |outcome: &Value| {
            let state = outcome["state"].as_str().unwrap_or_default();
            let order = ["accepted", "unconfirmed", "sent", "delivered", "read"];
            let rank = |word: &str| order.iter().position(|known| *known == word);
            matches!(state, "rejected" | "failed") || rank(state) >= rank(until) && rank(state).is_some()
        };
        let what = format!("a command to be {until}");
        self.until(&what, async || Ok(Some(self.get(&path).await?).filter(&far))).await
    }

    /// The composer, once `holds`.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn composer(&self, state: &str) -> Result<Value, Broken> {
        let path = format!("/v1/conversations/{}?user_id={}", self.conversation, self.user);
        let what = format!("the composer to be {state}");
        let ask = async || {
            let answer = self.get(&path).await?;
            Ok((answer["composer"]["state"] == state).then(|| answer["composer"].clone()))
        };
        self.until(&what, ask).await
    }

    /// Every event of the conversation so far, in the order of the log.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn events(&self) -> Result<Vec<Value>, Broken> {
        let (mut events, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/conversations/{}/events?limit=500&after={after}", self.conversation);
            let page = self.get(&path).await?;
            let found = page["events"].as_array().cloned().unwrap_or_default();
            if found.is_empty() {
                return Ok(events);
            }
            events.extend(found);
            after = page["next"].as_str().unwrap_or_default().to_owned();
        }
    }

    /// The first event for which `is` holds.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn event(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value, Broken> {
        self.until(what, async || Ok(self.events().await?.into_iter().find(|event| is(event)))).await
    }

    /// The contact sends something; its message id.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn contact_sends(&self, mut message: Value) -> Result<String, Broken> {
        message["phone_number_id"] = json!(self.cast.phone_number_id);
        let path = format!("/contacts/{}/messages", self.cast.contact_phone);
        let answer = self.simulate(Method::POST, &path, Some(&message)).await?;
        let id = answer["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| Broken("the simulator gave no message id".to_owned()))
    }

    /// What the contact's phone shows of the conversation; `null` before the first message.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn screen(&self) -> Result<Value, Broken> {
        let url = format!("{}/simulator/contacts/{}", self.cast.simulator, self.cast.contact_phone);
        let (_, answer) = self.call(Method::GET, url, None, false).await?;
        Ok(answer["conversations"][0].clone())
    }

    /// How many POSTs to this contact WhatsApp has accepted, and how many it has seen.
    ///
    /// # Errors
    /// When there is no answer in time, or another one.
    pub async fn posts(&self) -> Result<(u64, u64), Broken> {
        let path = format!("/ledger?limit=1000&to={}", self.cast.contact_phone);
        let answer = self.simulate(Method::GET, &path, None).await?;
        let posts = answer["posts"].as_array().cloned().unwrap_or_default();
        let ours: Vec<_> = posts.iter().filter(|post| is_to(post, &self.cast.contact_phone)).collect();
        let accepted = ours.iter().filter(|post| post["outcome"] == "accepted").count();
        Ok((accepted as u64, ours.len() as u64))
    }
}

fn is_to(post: &Value, phone: &str) -> bool {
    post["to"].as_str().is_some_and(|to| to.trim_start_matches('+') == phone)
}
