//! Calls that are no sends: templates and the business profile. They may be repeated by whoever calls.

use connector_domain::command::NumberState;
use connector_domain::ids::{OrganizationId, PhoneNumberId, WabaId};
use connector_domain::outcome::Transport;
use connector_domain::template::{Template, TemplateButton};
use connector_ports::whatsapp::{BusinessProfile, WhatsAppError};
use reqwest::{Method, RequestBuilder, Url};
use serde_json::{Value, json};

use super::answer::{graph_error, is_transient};
use super::client::{GraphClient, classify, read_bounded};

/// A page of templates with long texts is well below.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// An account has up to 6,000 templates in all languages; this ends a server that pages for ever.
const PAGE_LIMIT: usize = 500;

const TEMPLATE_FIELDS: &str = "name,language,status,category,parameter_format,components";
const NUMBER_FIELDS: &str = "quality_rating,status,throughput,whatsapp_business_manager_messaging_limit";
const PROFILE_FIELDS: &str = "about,address,description,email,profile_picture_url,websites,vertical";

impl GraphClient {
    /// Follows the `after` cursors against the configured base URL: the `next` links name Meta's own host.
    pub(super) async fn list_templates(
        &self,
        organization: &OrganizationId,
        waba: &WabaId,
    ) -> Result<Vec<Template>, WhatsAppError> {
        let mut templates = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..PAGE_LIMIT {
            let mut url = self.edge(waba.as_str(), "message_templates")?;
            url.query_pairs_mut().append_pair("fields", TEMPLATE_FIELDS).append_pair("limit", "100");
            if let Some(cursor) = &after {
                url.query_pairs_mut().append_pair("after", cursor);
            }
            let page = self.call(Method::GET, url, None).await?;
            let data = page["data"].as_array().ok_or_else(|| unavailable("the list of templates is unreadable"))?;
            templates.extend(data.iter().filter_map(|template| read_template(organization, waba, template)));
            let next = page["paging"]["cursors"]["after"].as_str().map(str::to_owned);
            // The last page has a cursor too; what it lacks is the link to the next one.
            let more = page["paging"]["next"].is_string() && !data.is_empty();
            match next {
                Some(next) if more && Some(&next) != after.as_ref() => after = Some(next),
                _ => return Ok(templates),
            }
        }
        Err(unavailable("the list of templates does not end"))
    }

    pub(super) async fn read_number_state(&self, number: &PhoneNumberId) -> Result<NumberState, WhatsAppError> {
        let mut url = self.edge(number.as_str(), "")?;
        url.query_pairs_mut().append_pair("fields", NUMBER_FIELDS);
        let answer = self.call(Method::GET, url, None).await?;
        let word = |value: &Value| value.as_str().map(str::to_owned).filter(|word| !word.is_empty());
        Ok(NumberState {
            messaging_limit: word(&answer["whatsapp_business_manager_messaging_limit"]),
            throughput: word(&answer["throughput"]["level"]),
            quality_rating: word(&answer["quality_rating"]),
            status: word(&answer["status"]),
        })
    }

    pub(super) async fn read_profile(&self, number: &PhoneNumberId) -> Result<BusinessProfile, WhatsAppError> {
        let mut url = self.edge(number.as_str(), "whatsapp_business_profile")?;
        url.query_pairs_mut().append_pair("fields", PROFILE_FIELDS);
        let answer = self.call(Method::GET, url, None).await?;
        let mut profile = read_profile(&answer);
        let url = self.edge(number.as_str(), "official_business_account")?;
        profile.official = match self.call(Method::GET, url, None).await {
            Ok(answer) => answer["oba_status"] == "APPROVED",
            // A number that never applied, or a token without that right: no verified mark that we could vouch for.
            Err(WhatsAppError::Refused { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok(profile)
    }

    pub(super) async fn write_profile(
        &self,
        number: &PhoneNumberId,
        profile: &BusinessProfile,
    ) -> Result<(), WhatsAppError> {
        let url = self.edge(number.as_str(), "whatsapp_business_profile")?;
        let mut body = json!({ "messaging_product": "whatsapp" });
        let fields = [
            ("about", &profile.about),
            ("address", &profile.address),
            ("description", &profile.description),
            ("email", &profile.email),
            ("vertical", &profile.vertical),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        if !profile.websites.is_empty() {
            body["websites"] = profile.websites.clone().into();
        }
        let answer = self.call(Method::POST, url, Some(&body)).await?;
        if answer["success"] == true { Ok(()) } else { Err(unavailable("the answer does not say that it was set")) }
    }

    fn edge(&self, id: &str, edge: &str) -> Result<Url, WhatsAppError> {
        // 100 is Graph's "invalid parameter", which is what it would answer.
        self.url(id, edge).ok_or(WhatsAppError::Refused { code: 100 })
    }

    async fn call(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Value, WhatsAppError> {
        let request = self.request(method, url).ok_or_else(|| unavailable("the access token cannot be read"))?;
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let (http, bytes) = exchange(request).await.map_err(|error| match classify(&error) {
            Transport::Connect | Transport::Dns | Transport::Tls => unavailable("no connection"),
            Transport::Timeout => unavailable("no answer in time"),
            Transport::Reset => unavailable("the connection ended"),
            Transport::Other => unavailable("the request failed"),
        })?;
        let unreadable = || unavailable(&format!("an unreadable answer with HTTP status {http}"));
        let json: Value = serde_json::from_slice(&bytes.ok_or_else(unreadable)?).map_err(|_| unreadable())?;
        match graph_error(&json) {
            Some(error) if is_transient(http, &json, error) => {
                Err(unavailable(&format!("HTTP status {http}, code {}", error.code)))
            }
            Some(error) => Err(WhatsAppError::Refused { code: error.code }),
            None if (200..300).contains(&http) => Ok(json),
            None => Err(unreadable()),
        }
    }
}

async fn exchange(request: RequestBuilder) -> Result<(u16, Option<Vec<u8>>), reqwest::Error> {
    let response = request.send().await?;
    let http = response.status().as_u16();
    Ok((http, read_bounded(response, ANSWER_LIMIT).await?))
}

fn unavailable(reason: &str) -> WhatsAppError {
    WhatsAppError::Unavailable { reason: reason.to_owned() }
}

/// `None` for an element without a name or language: nobody could call it.
fn read_template(organization: &OrganizationId, waba: &WabaId, json: &Value) -> Option<Template> {
    let word = |value: &Value| value.as_str().map(str::to_ascii_uppercase);
    let mut template = Template {
        waba_id: waba.clone(),
        organization_id: organization.clone(),
        name: json["name"].as_str()?.to_owned(),
        language: json["language"].as_str()?.to_owned(),
        status: word(&json["status"]).unwrap_or_else(|| "UNKNOWN".to_owned()),
        category: word(&json["category"]).unwrap_or_default(),
        // Templates from before named parameters came do not say.
        parameter_format: word(&json["parameter_format"]).unwrap_or_else(|| "POSITIONAL".to_owned()),
        header_format: None,
        header: None,
        body: String::new(),
        footer: None,
        buttons: Vec::new(),
        other_components: Vec::new(),
    };
    for component in json["components"].as_array().into_iter().flatten() {
        let text = component["text"].as_str().map(str::to_owned);
        match word(&component["type"]).as_deref() {
            Some("HEADER") => {
                template.header_format = Some(word(&component["format"]).unwrap_or_else(|| "TEXT".to_owned()));
                template.header = text;
            }
            Some("BODY") => template.body = text.unwrap_or_default(),
            Some("FOOTER") => template.footer = text,
            Some("BUTTONS") => {
                let buttons = component["buttons"].as_array().into_iter().flatten();
                template.buttons.extend(buttons.map(read_button));
            }
            // Kept although nothing can fill it: whoever sends has to know.
            other => template.other_components.push(other.unwrap_or_default().to_owned()),
        }
    }
    Some(template)
}

fn read_button(button: &Value) -> TemplateButton {
    let field = |name: &str| button[name].as_str().map(str::to_owned);
    TemplateButton {
        kind: field("type").unwrap_or_default().to_ascii_uppercase(),
        text: field("text").unwrap_or_default(),
        url: field("url"),
    }
}

/// Meta's guide has the fields in `data[0]`, its OpenAPI file in `data[0].business_profile`.
fn read_profile(answer: &Value) -> BusinessProfile {
    let element = &answer["data"][0];
    let nested = &element["business_profile"];
    let fields = if nested.is_object() { nested } else { element };
    let field = |name: &str| fields[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let websites = fields["websites"].as_array().into_iter().flatten();
    BusinessProfile {
        about: field("about"),
        address: field("address"),
        description: field("description"),
        email: field("email"),
        websites: websites.filter_map(|website| website.as_str().map(str::to_owned)).collect(),
        vertical: field("vertical"),
        picture_url: field("profile_picture_url"),
        official: false,
    }
}
