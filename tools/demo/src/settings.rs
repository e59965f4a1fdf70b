//! What the processes of a demo are told: one world, one organization, a short window.

use std::path::{Path, PathBuf};
use std::time::Duration;

use local_stack::{ServerError, free_port};

use crate::story::Cast;

/// The number the demo's organization writes from. The simulator knows it from its start.
pub const PHONE_NUMBER_ID: &str = "100000000000001";
/// The account of that number.
pub const WABA_ID: &str = "200000000000001";
/// The phone of the contact in the story.
pub const CONTACT_PHONE: &str = "491705550123";
/// The demo's tenant.
pub const ORGANIZATION: &str = "acme";

const APP_SECRET: &str = "demo-app-secret";
const VERIFY_TOKEN: &str = "demo-verify-token";
const GRAPH_TOKEN: &str = "demo-graph-token";
const API_TOKEN: &str = "demo-api-token";
/// The bearer token of whoever runs the demo: numbers are assigned with it.
pub const OPERATOR_TOKEN: &str = "demo-operator-token";

/// Ports, secrets and durations of one fleet.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of the customer service window.
    pub window: Duration,
    api: u16,
    webhooks: u16,
    simulator: u16,
    folder: PathBuf,
}

impl Settings {
    /// Settings with free ports; files go into `folder`.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn new(folder: &Path, window: Duration) -> Result<Self, ServerError> {
        let [api, webhooks, simulator] = [free_port()?, free_port()?, free_port()?];
        Ok(Self { window, api, webhooks, simulator, folder: folder.to_owned() })
    }

    /// Where the conversation API is.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// The bearer token of the demo's organization.
    #[must_use]
    pub fn api_token(&self) -> String {
        API_TOKEN.to_owned()
    }

    /// Where the simulator is.
    #[must_use]
    pub fn simulator_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.simulator)
    }

    /// Who plays the story, and where.
    #[must_use]
    pub fn cast(&self) -> Cast {
        Cast {
            api: self.api_url(),
            token: self.api_token(),
            simulator: self.simulator_url(),
            phone_number_id: PHONE_NUMBER_ID.to_owned(),
            waba_id: WABA_ID.to_owned(),
            contact_phone: CONTACT_PHONE.to_owned(),
        }
    }

    /// Where webhooks go.
    #[must_use]
    pub fn webhooks_url(&self) -> String {
        format!("http://127.0.0.1:{}/webhooks", self.webhooks)
    }

    /// The file of the embedded log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("log.sqlite")
    }

    /// The environment of every process of the connector.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let window = format!("{}ms", self.window.as_millis());
        // A margin and a lead that fit into a window of seconds.
        let margin = format!("{}ms", self.window.as_millis() / 20);
        let lead = format!("{}ms", self.window.as_millis() / 4);
        vec![
            ("STREAM_SECRET", "demo-stream-secret-of-32-bytes-or-more".to_owned()),
            ("WINDOW_LENGTH", window),
            ("WINDOW_MARGIN", margin),
            ("WINDOW_CLOSING_SOON", lead),
            ("OPT_IN_BODY", "Lucky Shrub".to_owned()),
            ("UNCONFIRMED_WAIT", "5s".to_owned()),
            ("GRAPH_BASE_URL", self.simulator_url()),
            ("GRAPH_TOKEN", GRAPH_TOKEN.to_owned()),
            ("WHATSAPP_APP_SECRET", APP_SECRET.to_owned()),
            ("WEBHOOK_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
            ("WEBHOOK_LISTEN", format!("127.0.0.1:{}", self.webhooks)),
            ("CONVERSATION_API_LISTEN", format!("127.0.0.1:{}", self.api)),
            ("API_TOKENS", format!("{{\"{API_TOKEN}\":\"{ORGANIZATION}\"}}")),
            ("OPERATOR_TOKENS", format!("{{\"{OPERATOR_TOKEN}\":\"demo\"}}")),
            ("LOG_PATH", self.log_path().display().to_string()),
        ]
    }

    /// The environment of the simulator.
    #[must_use]
    pub fn simulator_environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SIMULATOR_LISTEN", format!("127.0.0.1:{}", self.simulator)),
            ("SIMULATOR_CALLBACK_URL", self.webhooks_url()),
            ("SIMULATOR_APP_SECRET", APP_SECRET.to_owned()),
            ("SIMULATOR_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
            ("SIMULATOR_TOKEN", GRAPH_TOKEN.to_owned()),
            ("SIMULATOR_WINDOW", format!("{}ms", self.window.as_millis())),
            ("SIMULATOR_WEBHOOK_RETRY_BASE", "200ms".to_owned()),
            ("SIMULATOR_WEBHOOK_RETRY_MAX", "1s".to_owned()),
        ]
    }
}
