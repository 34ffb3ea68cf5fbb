//! One call to the API server: a deadline, a cap on the answer, buffers of ours wiped, failures classified.
//!
//! Typed clients print an answer they cannot parse and keep values in types that can be printed. Every call that
//! Keyward makes beside its watches therefore goes through [`call`], which hands back bytes.

mod refused;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Error as TransportError;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use kube::client::Body;
use kube::core::Status;
use kube::runtime::watcher;
use kube::{Client, Error};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use refused::refused;

/// How long a call may take in all.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The largest answer that is read; the API server's own limit for an object is about 1.5 MiB.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Asks for metadata only, so that the answer to a write carries no value back.
pub(super) const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Plain JSON.
pub(super) const JSON: &str = "application/json";

/// A merge patch (RFC 7386).
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// A JSON patch (RFC 6902).
pub(super) const JSON_PATCH: &str = "application/json-patch+json";

/// A server-side apply. JSON is YAML, which is all that the older media type says.
pub(super) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// What is left unescaped in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What to ask.
pub(super) struct Question<'a> {
    /// What is tried, as it stands in a fault: `writing Secret apps/db`.
    pub what: &'a str,
    /// Anything but `GET` may have taken effect when no answer comes.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Media type of the answer.
    pub accept: &'static str,
    /// Media type and body.
    pub body: Option<(&'static str, Zeroizing<Vec<u8>>)>,
}

/// What came back: success, with a body that is wiped.
pub(super) struct Answer {
    pub status: StatusCode,
    pub request_id: Option<String>,
    body: Zeroizing<Vec<u8>>,
    what: String,
    reads: bool,
}

/// A failure, with the API server's own account where it gave one.
pub(super) struct Refusal {
    pub fault: Fault,
    pub status: Option<Box<Status>>,
}

impl Answer {
    /// The body as `T`.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|_| {
            // The text of the error could quote the body.
            Fault::new(
                unknown_outcome(self.reads),
                Reason::ClusterUnavailable,
                format!("{}: the API server's answer cannot be parsed", self.what),
            )
            .with_request_id(self.request_id.clone())
        })
    }
}

/// An object after a write, as far as [`METADATA_ONLY`] shows it.
#[derive(Deserialize)]
pub(super) struct Written {
    pub metadata: WrittenMeta,
}

/// What tells this state of an object from every other.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WrittenMeta {
    pub uid: String,
    pub resource_version: String,
}

impl Refusal {
    /// Whether the `test` of a JSON patch failed. That is a 422 that blames no field; what a schema refuses names its fields.
    pub(super) fn is_failed_test(&self) -> bool {
        let Some(status) = &self.status else { return false };
        let blames = status
            .details
            .as_ref()
            .is_some_and(|details| !details.causes.is_empty());
        self.fault.class == Class::Permanent && status.code == 422 && !blames
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { fault, status: None }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        refusal.fault
    }
}

/// Asks once. Nothing is repeated here: who asks knows whether it may be.
pub(super) async fn call(client: &Client, question: Question<'_>) -> Result<Answer, Refusal> {
    let what = question.what.to_owned();
    let reads = question.method == Method::GET;
    let request = build(question).map_err(|_| {
        Refusal::from(Fault::new(
            Class::Permanent,
            Reason::SpecInvalid,
            format!("{what}: the name does not fit into a request"),
        ))
    })?;
    match tokio::time::timeout(DEADLINE, exchange(client, request)).await {
        Err(_) => Err(Refusal::from(Fault::new(
            unknown_outcome(reads),
            Reason::ClusterUnavailable,
            format!(
                "{what}: the API server did not answer within {} s",
                DEADLINE.as_secs()
            ),
        ))),
        Ok(Err(error)) => Err(transport_fault(&what, reads, &error).into()),
        Ok(Ok(raw)) if raw.status.is_success() => Ok(Answer {
            status: raw.status,
            request_id: raw.request_id,
            body: raw.body,
            what,
            reads,
        }),
        Ok(Ok(raw)) => Err(refused(&what, reads, &raw)),
    }
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> Cow<'_, str> {
    match name {
        // Dots alone would climb out of the path.
        "" | "." | ".." => Cow::Borrowed("%20"),
        _ => utf8_percent_encode(name, SEGMENT).into(),
    }
}

/// What went wrong with a watch, without quoting the server.
pub(super) fn describe_watch(error: &watcher::Error) -> String {
    let (step, cause) = match error {
        watcher::Error::InitialListFailed(error) => ("listing failed", describe(error)),
        watcher::Error::WatchStartFailed(error) => ("the watch did not start", describe(error)),
        watcher::Error::WatchFailed(error) => ("the watch broke off", describe(error)),
        watcher::Error::WatchError(status) => ("the server ended the watch", describe_status(status)),
        watcher::Error::NoResourceVersion => ("the server gave no resourceVersion", String::new()),
    };
    if cause.is_empty() {
        step.to_owned()
    } else {
        format!("{step}: {cause}")
    }
}

struct Raw {
    status: StatusCode,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
}

fn build(question: Question<'_>) -> Result<Request<Body>, http::Error> {
    let mut request = Request::builder()
        .method(question.method)
        .uri(question.path)
        .header(header::ACCEPT, question.accept);
    let mut body = Body::empty();
    if let Some((content_type, buffer)) = question.body {
        request = request.header(header::CONTENT_TYPE, content_type);
        // The owner is wiped once the last reference inside the HTTP client is gone.
        body = Body::from(Bytes::from_owner(buffer));
    }
    request.body(body)
}

async fn exchange(client: &Client, request: Request<Body>) -> Result<Raw, Error> {
    let (head, mut body) = client.send(request).await?.into_parts();
    let text = |name: &str| head.headers.get(name)?.to_str().ok();
    let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
    let expected = number("content-length").and_then(|length| usize::try_from(length).ok());
    // Sized ahead, because a buffer that grows leaves unwiped copies behind.
    let mut buffer = Zeroizing::new(Vec::with_capacity(
        expected.unwrap_or(16 * 1024).min(LARGEST_ANSWER),
    ));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if buffer.len() + data.len() > LARGEST_ANSWER {
            return Err(Error::ReadEvents(std::io::Error::other(
                "the answer is larger than 4 MiB",
            )));
        }
        append(&mut buffer, &data);
    }
    Ok(Raw {
        status: head.status,
        request_id: text("audit-id").map(str::to_owned),
        retry_after: number("retry-after").map(Duration::from_secs),
        body: buffer,
    })
}

/// Appends without leaving an unwiped copy behind when the buffer has to move.
pub(super) fn append(buffer: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let needed = buffer.len() + data.len();
    if needed > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
        larger.extend_from_slice(buffer);
        std::mem::swap(buffer, &mut larger);
    }
    buffer.extend_from_slice(data);
}

fn transport_fault(what: &str, reads: bool, error: &Error) -> Fault {
    let class = if never_sent(error) {
        Class::Transient
    } else {
        unknown_outcome(reads)
    };
    Fault::new(
        class,
        Reason::ClusterUnavailable,
        format!("{what}: {}", describe(error)),
    )
}

/// Whether the request cannot have reached the server.
fn never_sent(error: &Error) -> bool {
    match error {
        Error::Auth(_) | Error::BuildRequest(_) | Error::HttpError(_) => true,
        Error::Service(cause) => cause
            .downcast_ref::<TransportError>()
            .is_some_and(TransportError::is_connect),
        _ => false,
    }
}

/// What the client met, in words of ours.
fn describe(error: &Error) -> String {
    match error {
        Error::Api(status) => describe_status(status),
        Error::Auth(_) => "the operator's own credential cannot be used".into(),
        error if never_sent(error) => "the API server cannot be reached".into(),
        Error::SerdeError(_) | Error::FromUtf8(_) => "the answer cannot be parsed".into(),
        _ => "the connection to the API server broke".into(),
    }
}

fn describe_status(status: &Status) -> String {
    format!("the API server answered {} {}", status.code, status.reason)
}

/// Reading has no effect; what became of a write is unknown until somebody looks.
fn unknown_outcome(reads: bool) -> Class {
    if reads { Class::Transient } else { Class::Ambiguous }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::Response;
    use keyward_stand_ins::kubernetes::ApiServer;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// A request as the API server would see it.
    #[derive(Debug, Clone)]
    pub(in crate::cluster) struct Seen {
        pub method: Method,
        pub path: String,
        pub accept: String,
        pub content_type: String,
        pub body: Value,
    }

    /// A client whose every request is answered by `answer`, and what it asked.
    pub(in crate::cluster) fn scripted(
        answer: impl Fn(&Seen) -> (u16, Value) + Send + Sync + 'static,
    ) -> (Client, Arc<Mutex<Vec<Seen>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&log);
        let answer = Arc::new(answer);
        let service = service_fn(move |request: Request<Body>| {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let header = |name| {
                    let value = parts.headers.get(name);
                    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
                };
                let one = Seen {
                    accept: header(header::ACCEPT),
                    content_type: header(header::CONTENT_TYPE),
                    method: parts.method,
                    path: parts.uri.to_string(),
                    body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                };
                let (status, value) = answer(&one);
                seen.lock().unwrap().push(one);
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(status)
                        .header("audit-id", "audit-1")
                        .body(Body::from(serde_json::to_vec(&value).unwrap()))
                        .unwrap(),
                )
            }
        });
        (Client::new(service, "default"), log)
    }

    /// A client of a stand-in, in the process: tests may stop the clock.
    pub(in crate::cluster) fn client_of(server: &ApiServer) -> Client {
        let server = server.clone();
        scripted(move |seen| server.answer(seen.method.as_str(), &seen.path, &seen.content_type, &seen.body))
            .0
    }

    fn question(method: Method) -> Question<'static> {
        Question {
            what: "writing Secret apps/db",
            method,
            path: "/api/v1/namespaces/apps/secrets/db".into(),
            accept: JSON,
            body: None,
        }
    }

    async fn fault_of(method: Method, status: u16, body: Value) -> Fault {
        let (client, _) = scripted(move |_| (status, body.clone()));
        match call(&client, question(method)).await {
            Ok(_) => panic!("the answer is no success"),
            Err(refusal) => refusal.fault,
        }
    }

    #[tokio::test]
    async fn answers_are_classified() {
        let cases = [
            (Method::PATCH, 403, Class::Denied),
            (Method::PATCH, 404, Class::Absent),
            (Method::PATCH, 409, Class::Conflict),
            (Method::PATCH, 413, Class::Permanent),
            (Method::PATCH, 422, Class::Permanent),
            (Method::PATCH, 429, Class::Throttled),
            (Method::PATCH, 503, Class::Transient),
            (Method::PATCH, 500, Class::Ambiguous),
            (Method::PATCH, 504, Class::Ambiguous),
            (Method::GET, 500, Class::Transient),
        ];
        for (method, status, class) in cases {
            let fault = fault_of(method.clone(), status, json!({})).await;
            assert_eq!(fault.class, class, "{method} {status}");
            assert_eq!(fault.request_id.as_deref(), Some("audit-1"));
        }
    }

    #[tokio::test]
    async fn a_refusal_names_fields_and_quotes_nothing() {
        let fault = fault_of(
            Method::PATCH,
            422,
            json!({"kind": "Status", "code": 422, "reason": "Invalid", "message": "hunter2",
                "details": {"causes": [{"field": "data[pass word]", "message": "Invalid value: hunter2"}]}}),
        )
        .await;
        assert_eq!(
            fault.to_string(),
            "writing Secret apps/db: the API server answered 422 Invalid for data[pass word]"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_ambiguous() {
        let service = service_fn(|_: Request<Body>| async {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let client = Client::new(service, "default");
        let Err(refusal) = call(&client, question(Method::PATCH)).await else {
            panic!("nobody answered");
        };
        assert_eq!(refusal.fault.class, Class::Ambiguous);
    }

    #[test]
    fn names_stay_inside_their_segment() {
        assert_eq!(segment("db.prod"), "db.prod");
        assert_eq!(segment("../kube-system"), "..%2Fkube-system");
        assert_eq!(segment(".."), "%20");
    }
}
