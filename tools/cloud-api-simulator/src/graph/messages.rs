//! `POST /{version}/{phone_number_id}/messages`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use futures::stream;
use serde_json::{Value, json};

use super::{
    authorize,
    errors::{GraphError, json_response, raw_response},
    request::{MessageRequest, digits, is_user_id},
};
use crate::{
    App,
    clock::now_ms,
    config::WindowErrors,
    contacts::ScreenMessage,
    faults::{Fault, Verdict},
    ledger::{Outcome, Post},
    template::{Filled, Template},
    webhooks::{
        build::{Line, Person, Reported},
        statuses::{self, Fate},
    },
};

/// A send whose shape, number and recipient are known to be good.
struct Addressed {
    line: Line,
    wa_id: String,
    /// As the request gave it.
    input: String,
    by_user_id: bool,
    /// `to` holds a user id, which belongs into `recipient`.
    user_id_in_to: bool,
    template: Option<(String, Filled)>,
    /// Pricing category.
    category: String,
}

/// Handler.
pub(crate) async fn send(
    State(app): State<Arc<App>>,
    Path((version, phone_number_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(error) = authorize(&app, &version, &headers) {
        return refuse(&app, post(&phone_number_id, &MessageRequest::default(), ""), &error);
    }
    let request = match MessageRequest::parse(&body) {
        Ok(request) => request,
        Err(error) => return refuse(&app, post(&phone_number_id, &MessageRequest::default(), ""), &error),
    };
    if request.status.is_some() {
        return mark_read(&app, &phone_number_id, &request);
    }
    let to = match address(&app, &phone_number_id, &request) {
        Ok(to) => to,
        Err(error) => return refuse(&app, post(&phone_number_id, &request, request.kind()), &error),
    };
    if to.user_id_in_to {
        return drop_silently(&app, post(&phone_number_id, &request, request.kind()), &to.input);
    }
    let verdict = app.faults.judge(&phone_number_id, &to.wa_id);
    let delay = app.config.delay_ms + verdict.delay_ms;
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut entry = post(&phone_number_id, &request, request.kind());
    entry.to = Some(to.wa_id.clone());
    entry.fault = verdict.answer.as_ref().map(|(fault, _)| fault.name());
    if let Some((fault, false)) = &verdict.answer {
        if let Fault::Error { code, status, subcode, details } = fault {
            return refuse(&app, entry, &injected(*code, *status, *subcode, details.as_deref()));
        }
        entry.outcome = Outcome::Lost;
        app.record(entry);
        return faulty_answer(fault, &json!({}));
    }
    match accept(&app, request, to, &verdict, entry) {
        Err((entry, error)) => refuse(&app, *entry, &error),
        Ok(value) => match &verdict.answer {
            Some((fault, _)) => faulty_answer(fault, &value),
            None => json_response(200, &value),
        },
    }
}

/// A ledger entry, so far a refused one without a reason.
fn post(phone_number_id: &str, request: &MessageRequest, kind: &str) -> Post {
    Post {
        at_ms: now_ms(),
        phone_number_id: phone_number_id.to_owned(),
        to: request.to.clone().or_else(|| request.recipient.clone()),
        opaque: request.biz_opaque_callback_data.clone(),
        kind: kind.to_owned(),
        text: request.text.as_ref().and_then(|text| text.body.clone()),
        wamid: None,
        outcome: Outcome::Lost,
        fault: None,
    }
}

fn refuse(app: &App, mut entry: Post, error: &GraphError) -> Response {
    entry.outcome = Outcome::Refused(error.code);
    app.record(entry);
    error.response(&app.ids.fbtrace_id())
}

/// What WhatsApp does with a user id in `to`: it answers as if it had taken the message, and nobody ever gets it.
fn drop_silently(app: &App, mut entry: Post, input: &str) -> Response {
    let wamid = app.ids.wamid(input);
    entry.wamid = Some(wamid.clone());
    entry.fault = Some("user_id_in_to");
    app.record(entry);
    let (contact, message) = (json!({"input": input, "wa_id": input}), json!({"id": wamid}));
    json_response(200, &json!({"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]}))
}

fn injected(code: u32, status: Option<u16>, subcode: Option<u32>, details: Option<&str>) -> GraphError {
    let mut error = GraphError::new(code);
    error = status.into_iter().fold(error, GraphError::status);
    error = subcode.into_iter().fold(error, GraphError::subcode);
    error.details(details.unwrap_or("Injected by a fault rule"))
}

fn mark_read(app: &App, phone_number_id: &str, request: &MessageRequest) -> Response {
    let kind = if request.typing_indicator.is_some() { "typing_indicator" } else { "read" };
    let mut entry = post(phone_number_id, request, kind);
    let check = || {
        request.check_product()?;
        registered(app, phone_number_id, |_, _| Ok(()))?;
        if request.status.as_deref() != Some("read") {
            return Err(GraphError::param("Param status must be one of {READ}"));
        }
        if request.typing_indicator.as_ref().is_some_and(|indicator| indicator["type"] != "text") {
            return Err(GraphError::param("Param typing_indicator['type'] must be one of {TEXT}"));
        }
        let wamid = request.message_id.as_deref();
        let wamid = wamid.ok_or_else(|| GraphError::param("The parameter message_id is required."))?;
        if app.contacts().business_reads(wamid, phone_number_id) {
            Ok(wamid.to_owned())
        } else {
            Err(GraphError::new(131_009).details("message_id is not a message this number has received"))
        }
    };
    match check() {
        Ok(wamid) => {
            entry.wamid = Some(wamid);
            entry.outcome = Outcome::Accepted;
            app.record(entry);
            json_response(200, &json!({"success": true}))
        }
        Err(error) => refuse(app, entry, &error),
    }
}

/// Runs `then` with a number that may send.
fn registered<T>(
    app: &App,
    phone_number_id: &str,
    then: impl FnOnce(&crate::world::Account, &crate::world::Phone) -> Result<T, GraphError>,
) -> Result<T, GraphError> {
    let world = app.world();
    let (account, phone) =
        world.phone(phone_number_id).ok_or_else(|| GraphError::no_such_object("post", phone_number_id))?;
    if phone.registered {
        then(account, phone)
    } else {
        Err(GraphError::new(133_010).details("The account does not exist in the Cloud API, or is not registered"))
    }
}

/// Checks everything that does not depend on what was sent before.
fn address(app: &App, phone_number_id: &str, request: &MessageRequest) -> Result<Addressed, GraphError> {
    request.check_shape()?;
    let (line, template, category) = registered(app, phone_number_id, |account, phone| {
        let line = Line::new(account, phone);
        let Some(wanted) = request.template.as_ref().filter(|_| request.kind() == "template") else {
            return Ok((line, None, "service".to_owned()));
        };
        let name = wanted.name.as_deref().unwrap_or_default();
        let language = wanted.language.as_ref().and_then(|language| language.code.as_deref()).unwrap_or_default();
        let template = account.template(name, language).ok_or_else(|| Template::missing(name, language))?;
        template.check_sendable()?;
        let filled = template.fill(wanted)?;
        Ok((line, Some((name.to_owned(), filled)), template.category.to_ascii_lowercase()))
    })?;
    let (wa_id, input, by_user_id) = match (&request.to, &request.recipient) {
        (Some(to), _) if is_user_id(to) => {
            let (wa_id, input) = (String::new(), to.clone());
            return Ok(Addressed { line, wa_id, input, by_user_id: true, user_id_in_to: true, template, category });
        }
        (Some(to), _) => {
            let invalid = || GraphError::new(131_009).details("Parameter 'to' is not a phone number");
            (digits(to).ok_or_else(invalid)?, to.clone(), false)
        }
        (None, Some(user_id)) => {
            let contacts = app.contacts();
            let unknown = || GraphError::new(131_026).details("No user with this business-scoped user id");
            (contacts.wa_id_of(user_id).ok_or_else(unknown)?.to_owned(), user_id.clone(), true)
        }
        (None, None) => return Err(GraphError::new(131_008).details("Parameter 'to' is mandatory")),
    };
    if by_user_id && category == "authentication" {
        return Err(GraphError::new(131_062).details("Authentication templates need a phone number"));
    }
    if wa_id == line.display_phone_number {
        return Err(GraphError::new(131_021).details("Sender and recipient phone number is the same"));
    }
    Ok(Addressed { line, wa_id, input, by_user_id, user_id_in_to: false, template, category })
}

/// Applies the limits, and if they allow it takes the message.
fn accept(
    app: &Arc<App>,
    request: MessageRequest,
    to: Addressed,
    verdict: &Verdict,
    mut entry: Post,
) -> Result<Value, (Box<Post>, GraphError)> {
    let now = now_ms();
    let throttle_status = app.config.throttle_status;
    if !app.take_throughput(&to.line.phone_number_id, now) {
        let error = GraphError::new(130_429).status(throttle_status).subcode(2_494_055);
        return Err((Box::new(entry), error.details("Cloud API message throughput has been reached.")));
    }
    let mut contacts = app.contacts();
    let contact = contacts.get_or_create(&to.wa_id, &app.ids);
    let mut fail = verdict.fail_later;
    if contact.unreachable {
        fail = Some(131_026);
    } else if contact.marketing_stopped && to.category == "marketing" {
        fail = Some(131_050);
    }
    let auto_read = contact.auto_read.unwrap_or(app.config.auto_read.is_on());
    let person = Person::from(&*contact);
    let thread = contact.thread(&to.line.phone_number_id);
    if app.config.pair_limit.is_on() && !thread.take_pair(now) {
        let details = "Message failed to send because there were too many messages sent from this phone number to the \
                       same phone number in a short period of time.";
        let error = GraphError::new(131_056).status(throttle_status).details(details);
        return Err((Box::new(entry), error));
    }
    if to.template.is_none() && !thread.window_open(now, app.config.window) {
        match app.config.window_errors {
            WindowErrors::Sync => {
                let details = "Message failed to send because more than 24 hours have passed since the customer last \
                               replied to this number.";
                return Err((Box::new(entry), GraphError::new(131_047).details(details)));
            }
            WindowErrors::Async => fail = fail.or(Some(131_047)),
            WindowErrors::Off => {}
        }
    }
    let wamid = app.ids.wamid(&to.wa_id);
    let opaque = request.biz_opaque_callback_data.clone();
    let (is_template, only_sent) = (to.template.is_some(), request.kind() == "reaction");
    let message = ScreenMessage {
        wamid: wamid.clone(),
        from_contact: false,
        kind: request.kind().to_owned(),
        text: to.template.as_ref().map_or_else(|| request.shown_text(), |(_, filled)| filled.body.clone()),
        template: to.template,
        context: request.context.and_then(|context| context.message_id),
        opaque: opaque.clone(),
        pricing_category: to.category.clone(),
        timestamp_ms: now,
        status: "accepted",
    };
    thread.show(message, app.config.screen);
    drop(contacts);
    let mut hold_ms = 0;
    let mut message_status = "accepted";
    if let (Some((ms, fails)), true) = (verdict.hold, is_template) {
        message_status = "held_for_quality_assessment";
        hold_ms = ms;
        fail = if fails { Some(132_015) } else { fail };
    }
    if app.config.statuses.is_on() {
        let fate = Fate {
            faults: verdict.statuses.clone(),
            fail,
            hold_ms,
            only_sent,
            delivery_delay: app.config.delivery_delay,
            read_delay: auto_read.then_some(app.config.read_delay),
        };
        let reported = Reported { wamid: wamid.clone(), opaque, category: to.category, by_user_id: to.by_user_id };
        statuses::schedule(app, to.line, person, reported, fate);
    }
    entry.wamid = Some(wamid.clone());
    entry.outcome = Outcome::Accepted;
    app.record(entry);
    let contact = if to.by_user_id {
        json!({"input": to.input, "user_id": to.input})
    } else {
        json!({"input": to.input, "wa_id": to.wa_id})
    };
    let mut message = json!({"id": wamid});
    if is_template {
        message["message_status"] = json!(message_status);
    }
    Ok(json!({"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]}))
}

/// The answer a fault makes of the right one.
fn faulty_answer(fault: &Fault, value: &Value) -> Response {
    let body = value.to_string();
    let (half, rest) = body.as_bytes().split_at(body.len() / 2);
    match fault {
        Fault::Garbage200 => raw_response(200, "text/html", Body::from("<!-- ok -->\u{0}{\"messages\":")),
        Fault::Http500Html => raw_response(
            500,
            "text/html",
            Body::from("<html><body><h1>Sorry, something went wrong.</h1></body></html>"),
        ),
        Fault::TruncatedBody => sized(body.len(), pieces(vec![half.to_vec()], Duration::from_millis(20), true)),
        Fault::SlowLoris { ms } => {
            let bytes: Vec<Vec<u8>> = [half, rest].concat().chunks(8).map(<[u8]>::to_vec).collect();
            let pause = Duration::from_millis(*ms) / u32::try_from(bytes.len()).unwrap_or(1).max(1);
            sized(body.len(), pieces(bytes, pause, false))
        }
        Fault::Error { code, status, subcode, details } => {
            injected(*code, *status, *subcode, details.as_deref()).response("A")
        }
        // A body that fails before its first byte makes the server close the connection with nothing written.
        _ => sized(body.len(), pieces(Vec::new(), Duration::ZERO, true)),
    }
}

/// A 200 that announces its full length.
fn sized(length: usize, body: Body) -> Response {
    let mut response = raw_response(200, "application/json; charset=UTF-8", body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// A body of pieces with a pause after each, then the end or a closed connection.
fn pieces(pieces: Vec<Vec<u8>>, pause: Duration, cut: bool) -> Body {
    let closed = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Body::from_stream(stream::unfold((pieces.into_iter(), true, false), move |(mut rest, first, ended)| async move {
        if ended {
            return None;
        }
        // The pause also lets the server flush what was given before the connection is cut.
        if !first {
            tokio::time::sleep(pause).await;
        }
        match rest.next() {
            Some(piece) => Some((Ok(Bytes::from(piece)), (rest, false, false))),
            None if cut => Some((Err(closed()), (rest, false, true))),
            None => None,
        }
    }))
}
