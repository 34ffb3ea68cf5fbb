//! One user's way to the servers: logs in when it must, once more when its token is refused.

use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;

const TOKEN: &str = "x-auth-token";
const NEW_TOKEN: &str = "x-subject-token";
const REQUEST_ID: &str = "x-openstack-request-id";
pub(super) const JSON: &str = "application/json";

/// What a user shows to Keystone.
#[derive(Clone, Debug)]
pub struct Login(Value);

/// A user's way to the servers.
pub struct Session {
    http: reqwest::Client,
    keystone: String,
    login: Login,
    token: Mutex<Option<String>>,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// By which the server's logs know the request.
    pub request_id: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    new_token: Option<String>,
}

impl Login {
    /// A user of the domain `Default` and one of its projects, by their names.
    #[must_use]
    pub fn password(user: &str, password: &str, project: &str) -> Self {
        let domain = json!({"id": "default"});
        Self(json!({
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "domain": domain, "password": password}},
            },
            "scope": {"project": {"name": project, "domain": domain}},
        }))
    }

    /// An application credential; it knows its project itself.
    #[must_use]
    pub fn application_credential(id: &str, secret: &str) -> Self {
        Self(json!({"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": id, "secret": secret},
        }}))
    }
}

impl Session {
    /// A session that has not logged in yet.
    pub(super) fn new(http: &reqwest::Client, keystone: &str, login: Login) -> Self {
        Self {
            http: http.clone(),
            keystone: keystone.to_owned(),
            login,
            token: Mutex::default(),
        }
    }

    /// Logs in and returns what Keystone answers. The token is kept if there is one.
    pub async fn log_in(&self) -> Result<Answer> {
        let url = format!("{}/v3/auth/tokens", self.keystone);
        let body = json!({"auth": self.login.0}).to_string();
        let answer = self
            .send(
                Method::POST,
                &url,
                None,
                &[("content-type", JSON)],
                body.into_bytes(),
            )
            .await?;
        self.token.lock().await.clone_from(&answer.new_token);
        Ok(answer)
    }

    /// Sends a request with a token. A token that is refused is replaced once; then the refusal is the answer.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let kept = self.token.lock().await.clone();
        if let Some(token) = kept {
            let answer = self
                .send(method.clone(), url, Some(&token), headers, body.clone())
                .await?;
            if answer.status != 401 {
                return Ok(answer);
            }
        }
        let token = self.log_in().await?.ok("log in")?.new_token;
        let token = token.context("Keystone accepted a login and gave no token")?;
        self.send(method, url, Some(&token), headers, body).await
    }

    /// Gets a JSON document.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.request(Method::GET, url, &[("accept", JSON)], Vec::new())
            .await
    }

    /// Posts a JSON document.
    pub async fn post(&self, url: &str, body: &Value) -> Result<Answer> {
        self.request(
            Method::POST,
            url,
            &[("content-type", JSON)],
            body.to_string().into_bytes(),
        )
        .await
    }

    /// Sends a method that needs no body.
    pub async fn bare(&self, method: Method, url: &str) -> Result<Answer> {
        self.request(method, url, &[], Vec::new()).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let mut request = self.http.request(method.clone(), url).body(body);
        for (name, value) in token.map(|token| (TOKEN, token)).iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.with_context(|| format!("{method} {url}"))?;
        let header = |name| {
            let value: Option<&reqwest::header::HeaderValue> = answer.headers().get(name);
            value.and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
        };
        let (request_id, new_token) = (header(REQUEST_ID), header(NEW_TOKEN));
        let status = answer.status().as_u16();
        let body = answer
            .bytes()
            .await
            .with_context(|| format!("read the answer to {method} {url}"))?;
        Ok(Answer {
            status,
            request_id,
            body: body.to_vec(),
            new_token,
        })
    }
}

impl Answer {
    /// The answer itself, or an error if it is a refusal. `what` appears in the error, as does the body: the
    /// values of the suites are no secrets.
    pub fn ok(self, what: &str) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        bail!("{what}: {} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("understand the answer")
    }

    /// A text in the body, by its JSON pointer.
    pub fn text(&self, pointer: &str) -> Result<String> {
        let body = self.json()?;
        let text = body.pointer(pointer).and_then(Value::as_str);
        Ok(text
            .with_context(|| format!("the answer has no {pointer}"))?
            .to_owned())
    }
}
