//! How many requests each thing takes, where the audit log of a real server does not tell: calls about health and
//! tokens are not written down, or are everybody's.

use super::*;

#[tokio::test]
async fn a_check_logs_in_and_looks_at_the_mount_once_and_then_asks_for_health_alone() {
    let server = vault(|_| None).await;
    let store = store(&server);
    store.check().await.unwrap();
    store.check().await.unwrap();
    let seen = server.seen();
    let targets: Vec<_> = seen.iter().map(Seen::path).collect();
    assert_eq!(targets, [HEALTH, LOGIN, MOUNT, HEALTH]);
    let mut health = seen.iter().filter(|seen| seen.path() == HEALTH);
    assert!(health.all(|seen| seen.header("x-vault-token").is_none()));
}

#[tokio::test]
async fn a_sealed_server_fails_its_check_before_any_login() {
    let server = vault(|_| None).await;
    server.write("sys/seal", &json!({}));
    let fault = store(&server).check().await.unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Sealed, Reason::StoreSealed));
    assert_eq!(server.count("POST", LOGIN), 0);
}

#[tokio::test]
async fn a_denied_path_costs_one_look_up_and_no_login() {
    let server = vault(|_| None).await;
    let rules = json!({"path": {"secret/metadata/*": {"capabilities": ["read"]}}});
    server.write("sys/policies/acl/app", &json!({"policy": rules.to_string()}));
    let store = store(&server);
    for _ in 0..3 {
        assert!(store.read(&at("app")).await.is_err());
    }
    assert_eq!((server.count("POST", LOGIN), server.count("GET", LOOKUP)), (1, 1));
}

#[tokio::test]
async fn a_server_that_cannot_list_with_metadata_is_asked_once() {
    let server = tree(Product::Vault).await;
    let store = store(&server);
    for _ in 0..2 {
        assert_eq!(
            store
                .find(&query("app", &[("team", "a")]), &Unpaced)
                .await
                .unwrap()
                .len(),
            1
        );
    }
    assert_eq!(server.count("LIST", "/v1/secret/detailed-metadata/app"), 1);
}

#[tokio::test]
async fn a_server_that_lists_with_metadata_needs_no_further_reads() {
    let server = tree(Product::OpenBao).await;
    let found = store(&server)
        .find(&query("app", &[("team", "a")]), &Unpaced)
        .await
        .unwrap();
    assert_eq!(found[0].name, "app/a");
    assert_eq!(server.seen().len(), 3, "login, mount, list");
}

#[tokio::test]
async fn what_needs_no_answer_sends_nothing() {
    let server = vault(|_| None).await;
    let store = store(&server);
    let place = RemoteRef {
        place: Place::Uuid("u".into()),
        version: None,
    };
    let fault = store.probe(&place).await.unwrap_err();
    assert_eq!(
        fault.reason,
        Reason::SpecInvalid,
        "another kind of store has that"
    );
    store.close().await;
    assert!(
        server.seen().is_empty(),
        "a store that was never used has no token"
    );
}

/// Holds `app/a` of team a and `app/b` of team b.
async fn tree(product: Product) -> Vault {
    let server = vault_of(product, |_| None).await;
    for (path, team) in [("app/a", "a"), ("app/b", "b")] {
        server.write(&format!("secret/data/{path}"), &json!({"data": {}}));
        server.write(
            &format!("secret/metadata/{path}"),
            &json!({"custom_metadata": {"team": team}}),
        );
    }
    server
}
