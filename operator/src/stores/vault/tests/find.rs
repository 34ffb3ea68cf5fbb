//! Searches: folders, caps, tags, and what a server can list.

use super::*;

const LIST: &str = "LIST";

/// Holds `app/a`, `app/sub/b` and `app/sub/c`; `a` and `b` belong to team a.
fn tree(seen: &Seen) -> Option<Answer> {
    let keys = |keys: &str| Some(data(&format!(r#"{{"keys":{keys}}}"#)));
    match (seen.method.as_str(), path(seen)) {
        (LIST, "/v1/secret/metadata/app") => keys(r#"["sub/","a"]"#),
        (LIST, "/v1/secret/metadata/app/sub") => keys(r#"["c","b"]"#),
        ("GET", "/v1/secret/metadata/app/a" | "/v1/secret/metadata/app/sub/b") => {
            Some(data(&metadata(3, "", false)))
        }
        ("GET", "/v1/secret/metadata/app/sub/c") => {
            Some(data(&metadata(3, "", false).replace("team", "owner")))
        }
        _ => None,
    }
}

fn query(prefix: &str, limit: usize, tags: &[(&str, &str)]) -> FindQuery {
    FindQuery {
        prefix: prefix.into(),
        tags: tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        limit,
    }
}

fn names(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.name.as_str()).collect()
}

#[tokio::test]
async fn a_search_walks_folders_and_answers_in_order() {
    let server = vault(tree).await;
    let found = store(&server).find(&query("app", 10, &[])).await.unwrap();
    assert_eq!(names(&found), ["app/a", "app/sub/b", "app/sub/c"]);
    assert_eq!(found[1].place, Place::Path("app/sub/b".into()));
    assert_eq!(server.seen().iter().filter(|seen| seen.method == LIST).count(), 2);
}

#[tokio::test]
async fn more_than_the_cap_is_a_fault_and_never_a_cut() {
    let server = vault(tree).await;
    let store = store(&server);
    assert_eq!(store.find(&query("app", 3, &[])).await.unwrap().len(), 3);
    let fault = store.find(&query("app", 2, &[])).await.unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Permanent, Reason::FindLimit));
}

#[tokio::test]
async fn a_tree_without_an_end_is_given_up() {
    let server = vault(|seen| (seen.method == LIST).then(|| data(r#"{"keys":["down/"]}"#))).await;
    let fault = store(&server).find(&query("app", 10, &[])).await.unwrap_err();
    assert_eq!(fault.reason, Reason::FindLimit);
}

#[tokio::test]
async fn nothing_below_a_prefix_is_an_empty_answer() {
    let server = vault(|_| None).await;
    let store = store(&server);
    assert_eq!(store.find(&query("none", 10, &[])).await.unwrap(), []);
    assert_eq!(
        store.find(&query("none", 10, &[("team", "a")])).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn tags_are_custom_metadata_and_come_with_versions() {
    let server = vault(|seen| {
        if path(seen).contains("detailed-metadata") {
            return Some(Answer::json(
                404,
                r#"{"data":null,"warnings":["Invalid path for a versioned K/V mount."]}"#,
            ));
        }
        tree(seen)
    })
    .await;
    let store = store(&server);
    for _ in 0..2 {
        let found = store.find(&query("app/", 10, &[("team", "a")])).await.unwrap();
        assert_eq!(names(&found), ["app/a", "app/sub/b"]);
        assert!(found.iter().all(|found| found.version == Some(version_3())));
    }
    assert_eq!(store.find(&query("app", 10, &[("team", "b")])).await.unwrap(), []);
    let detailed = server
        .seen()
        .iter()
        .filter(|seen| path(seen).contains("detailed-metadata"))
        .count();
    assert_eq!(
        detailed, 1,
        "a server that cannot list with metadata is asked once"
    );
}

#[tokio::test]
async fn a_server_that_lists_with_metadata_needs_no_further_reads() {
    let server = vault(|seen| {
        (path(seen) == "/v1/secret/detailed-metadata/app").then(|| {
            let (a, b) = (
                metadata(3, "", false),
                metadata(3, "", false).replace("team", "owner"),
            );
            data(&format!(r#"{{"keys":["a","b"],"key_info":{{"a":{a},"b":{b}}}}}"#))
        })
    })
    .await;
    let found = store(&server)
        .find(&query("app", 10, &[("team", "a")]))
        .await
        .unwrap();
    assert_eq!(names(&found), ["app/a"]);
    assert_eq!(server.seen().len(), 3, "login, mount, list");
}

#[tokio::test]
async fn kv_version_1_is_listed_and_has_no_tags() {
    let server = vault(|seen| match (seen.method.as_str(), path(seen)) {
        ("GET", MOUNT) => Some(mount("kv", "1")),
        (LIST, "/v1/secret/app") => Some(data(r#"{"keys":["a"]}"#)),
        _ => None,
    })
    .await;
    let store = store(&server);
    assert_eq!(
        names(&store.find(&query("app", 10, &[])).await.unwrap()),
        ["app/a"]
    );
    assert_eq!(
        store
            .find(&query("app", 10, &[("a", "b")]))
            .await
            .unwrap_err()
            .reason,
        Reason::SpecInvalid
    );
}

#[tokio::test]
async fn a_denied_list_says_what_to_grant() {
    let server = vault(|seen| (seen.method == LIST).then(denied)).await;
    let fault = store(&server).find(&query("app", 10, &[])).await.unwrap_err();
    assert_eq!(fault.reason, Reason::RemoteDenied);
    assert!(
        fault.advice.contains("`list` on `secret/metadata/app`"),
        "{fault}"
    );
}
