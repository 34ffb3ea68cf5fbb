//! Files as people have them, and files that nobody should have.

use super::super::config::{CredentialRef, DomainRef, ProjectRef, UserRef};
use super::*;

const CANARY: &str = "canary-7f3a";

fn read(text: &str, name: Option<&str>) -> Result<Cloud, CloudsError> {
    parse(&SecretBytes::from(text), name, false)
}

fn error(text: &str) -> CloudsError {
    let error = read(text, None).err().expect("this file must be refused");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    error
}

fn password_file(extra: &str) -> String {
    format!(
        "clouds:\n  one:\n    auth:\n      auth_url: https://id.example.com/v3\n      username: ada\n      \
         password: {CANARY}\n      user_domain_name: Default\n      project_name: web\n      \
         project_domain_id: default\n{extra}"
    )
}

#[test]
fn a_password_cloud_is_read() {
    let cloud = read(
        &password_file(
            "    region_name: north\n    interface: internalURL\n    identity_api_version: 3\n    \
             key_manager_endpoint_override: https://kms.example.com/v1\n",
        ),
        Some("one"),
    )
    .ok()
    .unwrap();
    assert_eq!(cloud.region.as_deref(), Some("north"));
    assert_eq!(cloud.interface, Interface::Internal);
    assert_eq!(cloud.endpoint.unwrap().as_str(), "https://kms.example.com/v1");
    assert!(cloud.verify);
    let KeystoneAuth::Password {
        user,
        password,
        project,
    } = cloud.auth
    else {
        panic!("read as another kind of login");
    };
    assert!(password.same_as(CANARY.as_bytes()));
    assert_eq!(
        user,
        UserRef::Name {
            name: "ada".into(),
            domain: DomainRef::Name("Default".into())
        }
    );
    assert_eq!(
        project,
        ProjectRef::Name {
            name: "web".into(),
            domain: DomainRef::Id("default".into())
        }
    );
}

/// As `password_file`, with these lines in place of the domains and the project.
fn scoped(lines: &str) -> String {
    let lines = lines.replace(", ", "\n      ");
    format!(
        "clouds:\n  one:\n    auth:\n      auth_url: https://id.example.com/v3\n      username: ada\n      \
         password: {CANARY}\n      {lines}\n"
    )
}

#[test]
fn a_domain_that_is_said_once_is_of_user_and_project() {
    let name = |name: &str| DomainRef::Name(name.to_owned());
    let id = |id: &str| DomainRef::Id(id.to_owned());
    for (lines, of_user, of_project) in [
        ("project_name: web, domain_name: a", name("a"), name("a")),
        ("tenant_name: web, domain_id: a", id("a"), id("a")),
        ("project_name: web, default_domain_id: a", id("a"), id("a")),
        (
            "project_name: web, domain_name: a, default_domain_id: b",
            name("a"),
            name("a"),
        ),
        (
            "project_name: web, domain_name: a, user_domain_id: b",
            id("b"),
            name("a"),
        ),
        (
            "project_name: web, tenant_name: old, user_domain_name: a, project_domain_name: b",
            name("a"),
            name("b"),
        ),
    ] {
        let cloud = read(&scoped(lines), None).unwrap_or_else(|error| panic!("{lines}: {error}"));
        let KeystoneAuth::Password { user, project, .. } = cloud.auth else {
            panic!("read as another kind of login");
        };
        let user_there = UserRef::Name {
            name: "ada".into(),
            domain: of_user,
        };
        let project_there = ProjectRef::Name {
            name: "web".into(),
            domain: of_project,
        };
        assert_eq!((user, project), (user_there, project_there), "{lines}");
    }
    let cloud = read(&scoped("tenant_id: p, domain_name: a"), None).ok().unwrap();
    assert!(matches!(cloud.auth, KeystoneAuth::Password { project: ProjectRef::Id(id), .. } if id == "p"));
}

#[test]
fn only_a_project_has_secrets() {
    for lines in [
        "domain_name: canary, user_domain_name: a",
        "domain_id: canary, user_domain_name: a",
        "project_name: web, domain_name: a, system_scope: all",
        "project_name: web, domain_name: a, trust_id: canary",
    ] {
        assert!(
            matches!(error(&scoped(lines)), CloudsError::Unusable { key: "auth", .. }),
            "{lines}"
        );
    }
}

#[test]
fn what_is_said_of_the_key_manager_goes_before_what_is_said_of_all() {
    let both = "    region_name: north\n    key_manager_region_name: south\n    interface: public\n    \
                key_manager_endpoint_type: internalURL\n    key_manager_endpoint: https://kms.example.com/v1\n";
    let cloud = read(&password_file(both), None).ok().unwrap();
    assert_eq!(
        (cloud.region.as_deref(), cloud.interface),
        (Some("south"), Interface::Internal)
    );
    assert_eq!(cloud.endpoint.unwrap().as_str(), "https://kms.example.com/v1");
    let twice = "    key_manager_interface: public\n    key_manager_endpoint_type: public\n";
    assert_eq!(
        error(&password_file(twice)),
        CloudsError::Both("key_manager_interface", "key_manager_endpoint_type")
    );
}

#[test]
fn an_application_credential_is_known_with_and_without_its_type() {
    for auth_type in ["", "    auth_type: v3applicationcredential\n"] {
        let cloud = read(
            &format!(
                "clouds:\n  one:\n{auth_type}    auth:\n      auth_url: https://id.example.com\n      \
                 application_credential_id: abc\n      application_credential_secret: {CANARY}\n"
            ),
            None,
        )
        .ok()
        .unwrap();
        let KeystoneAuth::ApplicationCredential { credential, secret } = cloud.auth else {
            panic!("read as another kind of login");
        };
        assert_eq!(credential, CredentialRef::Id("abc".into()));
        assert!(secret.same_as(CANARY.as_bytes()));
    }
}

#[test]
fn an_unquoted_number_is_the_password_as_written() {
    let cloud = read(&password_file("").replace(CANARY, "0012"), None)
        .ok()
        .unwrap();
    let KeystoneAuth::Password { password, .. } = cloud.auth else {
        panic!("read as another kind of login");
    };
    assert!(password.same_as(b"0012"));
}

#[test]
fn the_choice_of_a_cloud_is_never_guessed() {
    let two = format!("{}  two: {{}}\n", password_file(""));
    assert_eq!(error(&two), CloudsError::Several { count: 2 });
    assert!(read(&two, Some("one")).is_ok());
    assert_eq!(
        read(&two, Some("three")).err(),
        Some(CloudsError::Unknown("three".into()))
    );
    assert_eq!(error("clouds: {}"), CloudsError::NoCloud);
    assert_eq!(error("other: 1"), CloudsError::NoCloud);
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    for (line, key) in [
        ("    cacert: /etc/ssl/ca.pem\n", "cacert"),
        ("    verify: false\n", "verify"),
        ("    insecure: true\n", "insecure"),
        ("    cert: /etc/ssl/me.pem\n", "cert"),
        ("    profile: vendor\n", "profile"),
        ("    auth_type: v3token\n", "auth_type"),
        ("    interface: canary\n", "interface"),
        (
            "    key_manager_endpoint_override: canary\n",
            "key_manager_endpoint_override",
        ),
        ("    key_manager_interface: canary\n", "interface"),
        (
            "    key_manager_service_name: canary\n",
            "key_manager_service_type",
        ),
        ("    regions: [north, canary]\n", "regions"),
    ] {
        match error(&password_file(line)) {
            CloudsError::Unusable { key: told, .. } => assert_eq!(told, key),
            other => panic!("{line}: {other:?}"),
        }
    }
    let unverified = SecretBytes::from(password_file("    verify: false\n").as_str());
    assert!(!parse(&unverified, None, true).ok().unwrap().verify);
}

#[test]
fn contradictions_and_gaps_are_named() {
    let with = |line: &str| password_file("").replace("      username: ada\n", line);
    assert_eq!(error(&with("")), CloudsError::Missing("auth.username"));
    assert_eq!(
        error(&with("      username: ada\n      user_id: b\n")),
        CloudsError::Both("auth.user_id", "auth.username")
    );
    assert_eq!(
        error(&with(
            "      application_credential_id: a\n      application_credential_secret: canary\n"
        )),
        CloudsError::Both("auth.password", "auth.application_credential_secret")
    );
    assert_eq!(
        error(&password_file("").replace("      user_domain_name: Default\n", "")),
        CloudsError::Missing("auth.user_domain_name")
    );
    assert!(matches!(
        error(&password_file("").replace("project_name: web", "system_scope: all")),
        CloudsError::Unusable { key: "auth", .. }
    ));
}

#[test]
fn hostile_files_end_in_a_plain_error() {
    let bomb = format!(
        "{}clouds: {{}}\n",
        (0..30).fold(String::from("a0: &a0 [canary]\n"), |file, n| {
            format!(
                "{file}a{m}: &a{m} [{refs}]\n",
                m = n + 1,
                refs = vec![format!("*a{n}"); 20].join(",")
            )
        })
    );
    for text in [
        "clouds: [canary",
        "clouds: canary",
        "clouds:\n  one: canary",
        "clouds:\n  one:\n    verify: canary",
        "clouds:\n  one: {}\n  one: {}\n# canary",
        "\u{0}canary",
        "- canary\n--- \n- canary",
        &format!("clouds: {}", "[".repeat(5_000)),
        &bomb,
    ] {
        assert!(
            matches!(error(text), CloudsError::Syntax { .. }),
            "{}",
            &text[..20.min(text.len())]
        );
    }
    assert!(matches!(
        parse(&SecretBytes::new(vec![0xff, 0xfe, b'a']), None, false).err(),
        Some(CloudsError::Syntax { .. })
    ));
    assert_eq!(
        parse(&SecretBytes::new(vec![b' '; MAX_BYTES + 1]), None, false).err(),
        Some(CloudsError::TooLarge)
    );
}
