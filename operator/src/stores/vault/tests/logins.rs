//! What each method sends.

use super::*;

#[tokio::test]
async fn each_method_sends_its_own_login() {
    let kubernetes = VaultAuth::Kubernetes {
        mount: "kubernetes/a".into(),
        role: "r".into(),
        jwt: Arc::new(Mint("jwt-1")),
    };
    let jwt = |role: Option<&str>| VaultAuth::Jwt {
        mount: "jwt".into(),
        role: role.map(str::to_owned),
        jwt: Arc::new(Mint("jwt-2")),
    };
    let userpass = VaultAuth::Userpass {
        mount: "userpass".into(),
        username: "a b".into(),
        password: "pw".into(),
    };
    let cert = |role: Option<&str>| VaultAuth::Cert {
        mount: "cert".into(),
        role: role.map(str::to_owned),
    };
    for (auth, target, body) in [
        (
            kubernetes,
            "/v1/auth/kubernetes/a/login",
            r#"{"role":"r","jwt":"jwt-1"}"#,
        ),
        (
            jwt(Some("r")),
            "/v1/auth/jwt/login",
            r#"{"jwt":"jwt-2","role":"r"}"#,
        ),
        (jwt(None), "/v1/auth/jwt/login", r#"{"jwt":"jwt-2"}"#),
        (userpass, "/v1/auth/userpass/login/a%20b", r#"{"password":"pw"}"#),
        (cert(Some("r")), "/v1/auth/cert/login", r#"{"name":"r"}"#),
        (cert(None), "/v1/auth/cert/login", ""),
        // The line end of a file is no part of the secret id.
        (app_role(), LOGIN, r#"{"role_id":"role","secret_id":"secret-id"}"#),
    ] {
        let server = vault(|seen| seen.path().contains("/login").then(|| granted(60))).await;
        let method = auth.method();
        let store = VaultStore::new(VaultConfig {
            auth,
            ..config(&server)
        })
        .unwrap();
        assert!(store.probe(&at("app")).await.is_ok(), "{method}");
        let mut seen = server.seen();
        assert!(
            seen[1..]
                .iter()
                .all(|seen| seen.header("x-vault-token") == Some(ROOT_TOKEN))
        );
        let login = seen.remove(0);
        assert_eq!((login.method.as_str(), login.target.as_str()), ("POST", target));
        assert_eq!(login.header("x-vault-token"), None);
        assert_eq!(String::from_utf8(login.body).unwrap(), body);
    }
}
