//! Short-lived tokens of `ServiceAccount`s, for logging in to stores.
//!
//! A ServiceAccount lends itself only by an annotation, which is read right before each token is asked for. A token
//! whose audience is the API server's own could be used against the cluster by whoever receives it, so such an
//! audience is refused unless the store's `insecure` part says otherwise.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Method;
use k8s_openapi::api::core::v1::ServiceAccount;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use keyward_crds::SERVICE_ACCOUNT_CONSENT;
use kube::Client;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ObjectKey;
use super::call::{JSON, METADATA_ONLY, Question, call};
use super::pruned::Metadata;
use super::status::path_of;
use crate::stores::{JwtSource, Outcome};

/// How long a token lasts; the shortest that Kubernetes issues.
const LIFETIME_SECONDS: u32 = 600;

/// The audiences that the API server accepts for itself.
#[derive(Debug, Clone)]
pub struct ApiAudiences(BTreeSet<String>);

/// One ServiceAccount and the audience its tokens are for.
pub struct ServiceAccountTokens {
    client: Client,
    account: ObjectKey,
    audience: String,
    standing: Option<Standing>,
}

/// What of a ServiceAccount decides about its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    uid: String,
    lends_itself: bool,
}

impl ApiAudiences {
    /// The usual audiences, those the administrator names, and those of the operator's own token, where there is one.
    #[must_use]
    pub fn new(named: &[String], own_token: Option<&str>) -> Self {
        let usual = [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "kubernetes",
        ];
        let own = own_token.map(audiences_of).unwrap_or_default();
        let all = usual
            .into_iter()
            .map(str::to_owned)
            .chain(named.iter().cloned())
            .chain(own);
        Self(all.map(|audience| canonical(&audience)).collect())
    }

    /// Whether a token for `audience` is accepted by the API server.
    #[must_use]
    pub fn contains(&self, audience: &str) -> bool {
        self.0.contains(&canonical(audience))
    }
}

impl ServiceAccountTokens {
    /// Tokens of `account` for `audience`.
    ///
    /// # Errors
    ///
    /// `InsecureRefused` where the audience is the API server's own and `allow_api_audience` does not permit it.
    pub fn new(
        client: Client,
        account: ObjectKey,
        audience: String,
        own: &ApiAudiences,
        allow_api_audience: bool,
    ) -> Outcome<Self> {
        if own.contains(&audience) && !allow_api_audience {
            return Err(Fault::new(
                Class::Permanent,
                Reason::InsecureRefused,
                format!("audience `{audience}` is the API server's own"),
            )
            .advise("choose a name for the store as audience and set it at the store's role, too"));
        }
        Ok(Self {
            client,
            account,
            audience,
            standing: None,
        })
    }

    /// Looks at the account as it is now: tokens of one that was made anew, or lends itself no longer, are those of
    /// another. What is wrong with it is told when a token is asked for.
    ///
    /// # Errors
    ///
    /// The cluster does not tell at present.
    pub async fn seen_now(mut self) -> Outcome<Self> {
        self.standing = match self.look().await {
            Ok(standing) => Some(standing),
            Err(fault) if fault.may_pass() => return Err(fault),
            Err(_) => None,
        };
        Ok(self)
    }

    async fn mint_now(&self) -> Outcome<SecretBytes> {
        self.check_consent().await?;
        let what = format!("asking for a token of ServiceAccount {}", self.account);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [self.audience], "expirationSeconds": LIFETIME_SECONDS},
        });
        let question = Question {
            what: &what,
            method: Method::POST,
            path: format!("{}/token", path_of::<ServiceAccount>(&self.account)),
            accept: JSON,
            body: Some((JSON, Zeroizing::new(request.to_string().into_bytes()))),
        };
        let answer: TokenAnswer = call(&self.client, question)
            .await
            .map_err(|refusal| self.missing(refusal.fault))?
            .parse()?;
        Ok(answer.status.token.0)
    }

    async fn check_consent(&self) -> Outcome<()> {
        if self.look().await?.lends_itself {
            return Ok(());
        }
        Err(Fault::new(
            Class::Denied,
            Reason::CredentialNotGranted,
            format!("ServiceAccount {} does not lend itself to Keyward", self.account),
        )
        .advise(format!("annotate it with `{SERVICE_ACCOUNT_CONSENT}: \"true\"`")))
    }

    async fn look(&self) -> Outcome<Standing> {
        let what = format!("reading ServiceAccount {}", self.account);
        let question = Question {
            what: &what,
            method: Method::GET,
            path: path_of::<ServiceAccount>(&self.account),
            accept: METADATA_ONLY,
            body: None,
        };
        let answer = call(&self.client, question)
            .await
            .map_err(|refusal| self.missing(refusal.fault))?;
        let account: Metadata<ServiceAccount> = answer.parse()?;
        let account = account.into_inner();
        let consent = account
            .annotations
            .and_then(|mut all| all.remove(SERVICE_ACCOUNT_CONSENT));
        Ok(Standing {
            uid: account.uid.unwrap_or_default(),
            lends_itself: consent.is_some_and(|value| value == "true"),
        })
    }

    fn missing(&self, fault: Fault) -> Fault {
        if fault.class != Class::Absent {
            return fault;
        }
        Fault::new(
            Class::Absent,
            Reason::CredentialMissing,
            format!("ServiceAccount {} does not exist", self.account),
        )
        .with_request_id(fault.request_id)
    }
}

impl JwtSource for ServiceAccountTokens {
    fn mint(&self) -> BoxFuture<'_, Outcome<SecretBytes>> {
        self.mint_now().boxed()
    }

    fn identity(&self) -> Vec<&[u8]> {
        let (uid, consent) = match &self.standing {
            Some(standing) => (standing.uid.as_str(), standing.lends_itself),
            None => ("", false),
        };
        let consent = if consent { "lent" } else { "not lent" };
        let (namespace, name) = (&*self.account.namespace, &*self.account.name);
        ["account", namespace, name, uid, consent, &self.audience]
            .map(str::as_bytes)
            .into()
    }
}

/// One spelling for an audience: no scheme, no closing slash, lower case.
fn canonical(audience: &str) -> String {
    let lower = audience.trim().to_ascii_lowercase();
    let bare = lower
        .strip_prefix("https://")
        .or_else(|| lower.strip_prefix("http://"));
    bare.unwrap_or(&lower).trim_end_matches('/').to_owned()
}

/// The `aud` and `iss` claims of a JWT. The signature does not matter: it is the operator's own token.
fn audiences_of(token: &str) -> Vec<String> {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let Some(claims) = claims else {
        return Vec::new();
    };
    let audiences = match &claims["aud"] {
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    };
    let issuer = claims["iss"].as_str().map(str::to_owned);
    audiences.into_iter().chain(issuer).collect()
}

#[derive(Deserialize)]
struct TokenAnswer {
    status: TokenStatus,
}

#[derive(Deserialize)]
struct TokenStatus {
    token: Token,
}

/// A token that goes from the answer's wiped buffer into secret bytes.
struct Token(SecretBytes);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Token, E> {
                Ok(Token(SecretBytes::from(text)))
            }
        }
        deserializer.deserialize_str(Take).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::tests::scripted;
    use super::*;

    fn tokens(client: Client) -> ServiceAccountTokens {
        let own = ApiAudiences::new(&[], None);
        ServiceAccountTokens::new(client, ObjectKey::new("apps", "web"), "vault".into(), &own, false).unwrap()
    }

    #[tokio::test]
    async fn a_token_needs_consent_each_time() {
        let (client, seen) = scripted(|seen| match seen.method {
            Method::GET => (
                200,
                json!({"metadata": {"annotations": {"keyward.dev/allow-token-requests": "true"}}}),
            ),
            _ => (201, json!({"status": {"token": "a.b.c"}})),
        });
        let token = tokens(client).mint().await.unwrap();
        assert!(token.same_as(b"a.b.c"));
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].accept, METADATA_ONLY);
        assert_eq!(seen[1].path, "/api/v1/namespaces/apps/serviceaccounts/web/token");
        assert_eq!(
            seen[1].body["spec"],
            json!({"audiences": ["vault"], "expirationSeconds": 600})
        );
    }

    #[tokio::test]
    async fn without_consent_no_token_is_asked_for() {
        let (client, seen) = scripted(|_| {
            (
                200,
                json!({"metadata": {"annotations": {"keyward.dev/allow-token-requests": "yes"}}}),
            )
        });
        let fault = tokens(client).mint().await.err().expect("there is no consent");
        assert_eq!(fault.reason, Reason::CredentialNotGranted);
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_missing_account_is_named() {
        let (client, _) = scripted(|_| (404, json!({"code": 404, "reason": "NotFound"})));
        let fault = tokens(client).mint().await.err().expect("there is no account");
        assert_eq!(fault.reason, Reason::CredentialMissing);
        assert_eq!(fault.message, "ServiceAccount apps/web does not exist");
    }

    #[tokio::test]
    async fn an_account_is_another_once_it_is_made_anew_or_lends_itself_no_longer() {
        let seen = async |code: u16, metadata: Value| {
            let (client, _) = scripted(move |_| (code, json!({"code": code, "metadata": metadata})));
            let tokens = tokens(client).seen_now().await?;
            Ok::<_, Fault>(tokens.identity().concat())
        };
        let account = |uid: &str, consent: &str| json!({"uid": uid, "annotations": {"keyward.dev/allow-token-requests": consent}});
        let lent = seen(200, account("1", "true")).await.unwrap();
        assert_eq!(lent, seen(200, account("1", "true")).await.unwrap());
        let others = [
            seen(200, account("2", "true")).await.unwrap(),
            seen(200, account("1", "false")).await.unwrap(),
            seen(404, Value::Null).await.unwrap(),
        ];
        assert!(!others.contains(&lent));
        assert!(seen(503, Value::Null).await.is_err(), "nobody knows");
    }

    #[test]
    fn the_api_servers_own_audiences_are_known_in_every_spelling() {
        let claims =
            URL_SAFE_NO_PAD.encode(r#"{"aud":["https://cluster.example"],"iss":"https://issuer.example"}"#);
        let own = ApiAudiences::new(&["extra".into()], Some(&format!("e30.{claims}.sig")));
        for audience in [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc/",
            "kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "https://cluster.example",
            "https://issuer.example/",
            "EXTRA",
        ] {
            assert!(own.contains(audience), "{audience}");
        }
        assert!(!own.contains("vault"));
    }

    #[tokio::test]
    async fn the_api_servers_own_audience_needs_leave() {
        let own = ApiAudiences::new(&[], None);
        let make = |allowed| {
            let (client, _) = scripted(|_| (200, Value::Null));
            let audience = "https://kubernetes.default.svc".to_owned();
            ServiceAccountTokens::new(client, ObjectKey::new("apps", "web"), audience, &own, allowed)
        };
        assert_eq!(
            make(false).err().expect("refused").reason,
            Reason::InsecureRefused
        );
        assert!(make(true).is_ok());
    }
}
