//! Facts of the protocols that Keyward's door hides: statuses and the shapes of answers that its rules rest on.

use std::cmp::Reverse;

use anyhow::{Context as _, Result, ensure};
use keyward_tests::harness::Suite;
use keyward_tests::rig::openstack::{Answer, NewSecret};
use reqwest::Method;
use serde_json::{Value, json};

use super::next_second;
use super::server::Server;

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        versions_are_told_to_everybody,
        logins_are_told_apart_by_their_status,
        a_token_is_of_a_project_or_of_none,
        a_token_ends_with_the_one_it_was_made_of,
        a_list_has_pages_in_the_wanted_order,
        a_payload_is_given_as_octets_and_set_once,
        a_payload_of_no_bytes_is_a_204,
        what_is_not_there_is_a_404_and_what_has_expired_before_it_began_a_400,
        metadata_is_replaced_as_a_whole_with_keys_in_lower_case,
    );
}

/// Sends a request without a token, whatever the server makes of it.
async fn bare(server: &Server, method: Method, url: &str, headers: &[(&str, &str)]) -> Result<(u16, Value)> {
    let client = keyward_tests::rig::http::client(server.servers().await?.ca())?;
    let mut request = client.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok((
        status,
        serde_json::from_slice(&answer.bytes().await?).unwrap_or_default(),
    ))
}

async fn versions_are_told_to_everybody(server: Server) -> Result<()> {
    let servers = server.servers().await?;
    let (status, body) = bare(&server, Method::GET, &servers.auth_url(), &[]).await?;
    assert_eq!(status, 200);
    ensure!(
        body["version"]["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("v3")),
        "{body}"
    );

    let root = format!("{}/", servers.key_manager_url());
    let version = [("openstack-api-version", "key-manager 1.1")];
    let (status, body) = bare(&server, Method::GET, &root, &version).await?;
    assert_eq!(status, 300);
    let newest = body["versions"][0]["max_version"]
        .as_str()
        .context("it names its newest version")?;
    ensure!(newest.starts_with("1."), "{newest}");
    let (status, body) = bare(&server, Method::GET, &root, &[]).await?;
    assert_eq!(status, 300);
    ensure!(
        body["versions"].get("values").is_some(),
        "the first version has another shape: {body}"
    );

    let secrets = format!("{}/v1/secrets", servers.key_manager_url());
    assert_eq!(bare(&server, Method::GET, &secrets, &[]).await?.0, 401);
    let dead = [("x-auth-token", "nobody")];
    assert_eq!(bare(&server, Method::GET, &secrets, &dead).await?.0, 401);
    Ok(())
}

async fn logins_are_told_apart_by_their_status(server: Server) -> Result<()> {
    use keyward_tests::rig::openstack::Login;
    let (servers, tenant) = (server.servers().await?, &server.tenant);
    let credential = server.credential().await?;
    let of = |id: &str, secret: &str| Login::application_credential(id, secret);
    for (login, status) in [
        (tenant.login(), 201),
        (credential.login(), 201),
        (Login::password(&tenant.user, "wrong", &tenant.project), 401),
        (Login::password("nobody", "wrong", &tenant.project), 401),
        (Login::password(&tenant.user, &tenant.password, "nowhere"), 401),
        (of(&credential.id, "wrong"), 401),
        (of("nobody", "wrong"), 404),
    ] {
        let answer = servers.session(login.clone()).log_in().await?;
        assert_eq!(answer.status, status, "{login:?}");
        ensure!(answer.request_id.is_some());
    }
    Ok(())
}

async fn a_token_is_of_a_project_or_of_none(server: Server) -> Result<()> {
    let answer = server
        .servers()
        .await?
        .session(server.tenant.login())
        .log_in()
        .await?
        .json()?;
    let token = &answer["token"];
    assert_eq!(token["project"]["id"], server.tenant.project_id.as_str());
    let catalog = token["catalog"].as_array().context("there is a catalog")?;
    let keys = catalog
        .iter()
        .find(|entry| entry["type"] == "key-manager")
        .context("with a key manager")?;
    let endpoints = keys["endpoints"].as_array().context("and its endpoints")?;
    for interface in ["public", "internal", "admin"] {
        ensure!(
            endpoints
                .iter()
                .any(|endpoint| endpoint["interface"] == interface),
            "{interface}"
        );
    }
    for name in ["issued_at", "expires_at"] {
        let time = token[name].as_str().context(name)?;
        ensure!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }
    Ok(())
}

/// A login by password gives a token without a project first, and that one is traded in.
async fn a_token_ends_with_the_one_it_was_made_of(server: Server) -> Result<()> {
    let tenant = &server.tenant;
    let user = json!({ "name": tenant.user, "domain": { "id": "default" }, "password": tenant.password });
    let project = json!({ "project": { "id": tenant.project_id } });
    let url = format!("{}/auth/tokens", server.servers().await?.auth_url());
    for ended_first in [true, false] {
        let password = json!({ "methods": ["password"], "password": { "user": user } });
        let first = token(&server, &json!({ "identity": password, "scope": "unscoped" })).await?;
        let trade = json!({ "methods": ["token"], "token": { "id": first } });
        let second = token(&server, &json!({ "identity": trade, "scope": project })).await?;
        let ask = async |method, token: &str| -> Result<u16> {
            let headers = [("x-auth-token", token), ("x-subject-token", token)];
            Ok(bare(&server, method, &url, &headers).await?.0)
        };
        let ended = if ended_first { &first } else { &second };
        assert_eq!(ask(Method::DELETE, ended).await?, 204);
        let left = (ask(Method::GET, &first).await?, ask(Method::GET, &second).await?);
        assert_eq!(left, if ended_first { (401, 401) } else { (200, 401) });
    }
    Ok(())
}

/// Logs in with this `auth` and gives the token.
async fn token(server: &Server, auth: &Value) -> Result<String> {
    let servers = server.servers().await?;
    let url = format!("{}/auth/tokens", servers.auth_url());
    let request = keyward_tests::rig::http::client(servers.ca())?.post(url);
    let body = json!({ "auth": auth }).to_string();
    let answer = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await?;
    let token = answer
        .headers()
        .get("x-subject-token")
        .context("a login gives a token")?;
    Ok(token.to_str()?.to_owned())
}

async fn a_list_has_pages_in_the_wanted_order(server: Server) -> Result<()> {
    let keys = server.keys();
    for name in ["s3", "s4", "s0", "s2", "s1"] {
        let id = keys.store(&NewSecret::named(name), b"value").await?;
        if name == "s4" {
            next_second(&keys, &id).await?;
        }
    }
    let mut listed = Vec::new();
    for offset in [0, 2, 4] {
        let page = keys
            .list(&format!("sort=created:desc,name:asc&limit=2&offset={offset}"))
            .await?;
        let page = page.ok("list")?.json()?;
        assert_eq!(
            (&page["total"], page.get("next").is_some()),
            (&json!(5), offset < 4)
        );
        listed.extend(page["secrets"].as_array().context("a page")?.clone());
    }
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = listed.iter().map(|one| text(one, "name")).collect();
    let mut ordered = listed.clone();
    ordered.sort_by_key(|one| (Reverse(text(one, "created")), text(one, "name")));
    ensure!(listed == ordered, "{names:?}");
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    let (newer, older) = names.split_at(3);
    assert_eq!(sorted(newer), ["s0", "s1", "s2"]);
    assert_eq!(sorted(older), ["s3", "s4"]);
    // What the first word leaves open is for the second.
    let page = keys.list("sort=status:asc,name:desc").await?.json()?;
    let names = page["secrets"].as_array().into_iter().flatten();
    let names: Vec<String> = names.map(|one| text(one, "name")).collect();
    assert_eq!(names, ["s4", "s3", "s2", "s1", "s0"]);
    for (query, status, total) in [
        ("name=S1", 200, 1),
        ("name=s_", 200, 5),
        ("name=s%25", 200, 5),
        ("name=none", 200, 0),
        ("limit=0", 200, 5),
    ] {
        let page = keys.list(query).await?;
        assert_eq!(
            (page.status, page.json()?["total"].as_u64()),
            (status, Some(total)),
            "{query}"
        );
    }
    assert_eq!(keys.list("sort=nothing:desc").await?.status, 400);
    Ok(())
}

async fn a_payload_is_given_as_octets_and_set_once(server: Server) -> Result<()> {
    let (keys, session) = (server.keys(), server.tenant.session());
    let id = keys.store(&NewSecret::named("bytes"), &[0xff, 0xfe]).await?;
    let url = format!(
        "{}/v1/secrets/{id}/payload",
        server.servers().await?.key_manager_url()
    );
    let as_text = session
        .request(Method::GET, &url, &[("accept", "text/plain")], Vec::new())
        .await?;
    assert_eq!(as_text.status, 406);
    let payload = keys.payload(&id).await?;
    assert_eq!(
        (payload.status, payload.body.as_slice()),
        (200, &[0xff, 0xfe][..])
    );
    assert_eq!(keys.set_payload(&id, b"again").await?.status, 409);

    let waiting = keys.store_without_payload(&NewSecret::named("later")).await?;
    let told = keys.describe(&waiting).await?.json()?;
    assert_eq!(
        (told.get("content_types"), &told["status"]),
        (None, &json!("ACTIVE"))
    );
    assert_eq!(keys.payload(&waiting).await?.status, 404);
    assert_eq!(keys.set_payload(&waiting, &vec![1; 20_001]).await?.status, 413);
    keys.set_payload(&waiting, b"now").await?.ok("set the payload")?;
    let told = keys.describe(&waiting).await?.json()?;
    assert_eq!(told["content_types"]["default"], "application/octet-stream");
    Ok(())
}

async fn a_payload_of_no_bytes_is_a_204(server: Server) -> Result<()> {
    use keyward::stores::Absence;
    let url = format!("{}/v1/secrets", server.servers().await?.key_manager_url());
    // Base64 of foreign letters alone is stored as what is left of it.
    let body = json!({
        "name": "nothing", "payload": "****", "payload_content_type": "application/octet-stream",
        "payload_content_encoding": "base64",
    });
    let made = server.tenant.session().post(&url, &body).await?.ok("store")?;
    let reference = made.text("/secret_ref")?;
    let id = reference
        .rsplit('/')
        .next()
        .context("a reference ends in an id")?;
    assert_eq!(server.keys().payload(id).await?.status, 204);
    let store = server.store().await?;
    let read = keyward::stores::Store::read(&store, &super::uuid(id)).await?;
    ensure!(matches!(
        read,
        keyward::stores::ReadOutcome::Absent(Absence::Empty)
    ));
    Ok(())
}

async fn what_is_not_there_is_a_404_and_what_has_expired_before_it_began_a_400(server: Server) -> Result<()> {
    let (keys, session) = (server.keys(), server.tenant.session());
    let root = format!("{}/v1", server.servers().await?.key_manager_url());
    let nobody = "00000000-0000-4000-8000-000000000000";
    for path in [
        format!("secrets/{nobody}"),
        format!("secrets/{nobody}/payload"),
        format!("secrets/{nobody}/metadata"),
        format!("containers/{nobody}"),
    ] {
        let headers = [(
            "accept",
            if path.ends_with("payload") {
                "application/octet-stream"
            } else {
                "application/json"
            },
        )];
        let answer: Answer = session
            .request(Method::GET, &format!("{root}/{path}"), &headers, Vec::new())
            .await?;
        assert_eq!(answer.status, 404, "{path}");
    }
    let past =
        chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()) - chrono::TimeDelta::seconds(5);
    let refused = keys
        .store(&NewSecret::named("past").expires(past), b"value")
        .await;
    let refused = refused.err().context("it would be expired already")?;
    ensure!(format!("{refused:#}").contains(": 400 "), "{refused:#}");
    Ok(())
}

async fn metadata_is_replaced_as_a_whole_with_keys_in_lower_case(server: Server) -> Result<()> {
    let (keys, session) = (server.keys(), server.tenant.session());
    let id = keys.store(&NewSecret::named("db"), b"value").await?;
    let url = format!(
        "{}/v1/secrets/{id}/metadata",
        server.servers().await?.key_manager_url()
    );
    assert_eq!(session.get(&url).await?.json()?, json!({ "metadata": {} }));
    keys.set_metadata(&id, &[("One", "1"), ("TWO", "2")]).await?;
    assert_eq!(
        session.get(&url).await?.json()?,
        json!({ "metadata": { "one": "1", "two": "2" } })
    );
    keys.set_metadata(&id, &[("three", "3")]).await?;
    assert_eq!(
        session.get(&url).await?.json()?,
        json!({ "metadata": { "three": "3" } })
    );
    Ok(())
}
