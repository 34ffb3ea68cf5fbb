//! A canary in every credential, value and error body: no type, fault or log line may show it.

use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::stores::transport::Identity;

const CANARY: &str = "canary-9e3b71";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn canary_granted() -> Answer {
    let Answer::Whole(status, headers, body) = granted(60) else {
        unreachable!("it is a whole answer")
    };
    let body = String::from_utf8(body).unwrap().replace(ROOT_TOKEN, CANARY);
    Answer::Whole(status, headers, body.into_bytes())
}

fn auths() -> Vec<VaultAuth> {
    let mount = || "approle".to_owned();
    vec![
        VaultAuth::Kubernetes {
            mount: mount(),
            role: "r".into(),
            jwt: Arc::new(Mint(CANARY)),
        },
        VaultAuth::AppRole {
            mount: mount(),
            role_id: "r".into(),
            secret_id: CANARY.into(),
        },
        VaultAuth::Token(CANARY.into()),
        VaultAuth::Jwt {
            mount: mount(),
            role: None,
            jwt: Arc::new(Mint(CANARY)),
        },
        VaultAuth::Userpass {
            mount: mount(),
            username: "u".into(),
            password: CANARY.into(),
        },
        VaultAuth::Cert {
            mount: mount(),
            role: None,
        },
    ]
}

#[tokio::test]
async fn no_type_no_fault_and_no_log_line_shows_a_credential_or_a_value() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut shown = String::new();

    for status in [0_u16, 200, 201, 307, 400, 403, 404, 429, 500, 503] {
        for auth in auths() {
            let server = vault(move |seen| {
                let target = seen.path();
                if target.contains("/login") {
                    return Some(canary_granted());
                }
                match status {
                    0 => None,
                    200 => matches!(target, DATA | METADATA).then(|| enveloped(&json!(CANARY), &Value::Null)),
                    _ => matches!(target, DATA | METADATA | "/v1/secret/metadata/x").then(|| {
                        Answer::json(
                            status,
                            &format!(r#"{{"errors":["{CANARY}"],"data":{{"k":"{CANARY}"}}}}"#),
                        )
                        .with_header("location", &format!("http://{CANARY}.invalid/"))
                    }),
                }
            })
            .await;
            server.write("auth/token/create", &json!({"id": CANARY, "policies": ["app"]}));
            let config = VaultConfig {
                auth,
                ..config(&server)
            };
            write!(shown, "{config:?}").unwrap();
            let store = VaultStore::new(config).unwrap();
            let place = at("app");
            write!(shown, "{:?}", store.probe(&place).await).unwrap();
            if let Err(fault) = store.read(&place).await {
                write!(shown, "{fault:?} {fault}").unwrap();
            }
            let query = FindQuery {
                prefix: "x".into(),
                tags: BTreeMap::from([("a".into(), "b".into())]),
                limit: 1,
            };
            write!(
                shown,
                "{:?} {:?}",
                store.find(&query, &Unpaced).await,
                store.check().await
            )
            .unwrap();
            store.close().await;
            write!(shown, "{store:?}").unwrap();
        }
    }
    for status in [200, 400, 500] {
        for auth in auths() {
            let server = vault(move |_| {
                Some(Answer::json(
                    status,
                    &format!(r#"{{"errors":["{CANARY}"],"auth":"{CANARY}"}}"#),
                ))
            })
            .await;
            let store = VaultStore::new(VaultConfig {
                auth,
                ..config(&server)
            })
            .unwrap();
            write!(shown, "{:?}", store.probe(&at("app")).await.unwrap_err()).unwrap();
        }
    }
    let server = vault(|_| None).await;
    let mut with_key = config(&server);
    with_key.transport.identity = Some(Identity {
        certificate_pem: CANARY.into(),
        key_pem: CANARY.into(),
    });
    write!(shown, "{with_key:?}").unwrap();
    write!(shown, "{:?}", VaultStore::new(with_key).unwrap_err()).unwrap();

    assert!(shown.contains("StoreThrottled"), "the failing calls were made");
    assert!(!shown.contains(CANARY), "{shown}");
    let logged = String::from_utf8(lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap();
    assert!(logged.contains("TRACE"), "the libraries' own lines were caught");
    let line = logged.lines().find(|line| line.contains(CANARY));
    assert_eq!(line, None);
}
