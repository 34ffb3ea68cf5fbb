//! The transport against stand-ins: what it refuses, what it cuts off, what it shows.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use super::*;
use keyward_core::address::AddressPolicy;
use keyward_stand_ins::http::{Answer, Seen, StandIn};

const CANARY: &str = "canary-5d1f0c";

fn loopback_allowed() -> Addresses {
    Addresses::from(AddressPolicy {
        allow_loopback: true,
        ..AddressPolicy::default()
    })
}

fn options() -> TransportOptions {
    TransportOptions {
        plain_http_allowed: true,
        deadline: Duration::from_secs(5),
        ..TransportOptions::new(Arc::new(loopback_allowed()))
    }
}

fn get(path: &str) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert("x-vault-token", HeaderValue::from_static(CANARY));
    Request {
        method: Method::GET,
        path_and_query: path.into(),
        headers,
        body: None,
    }
}

fn hello(_: &Seen) -> Answer {
    Answer::json(200, "hello")
}

async fn fault_of(base: &Url, options: TransportOptions) -> Fault {
    let transport = match Transport::new(base, &options) {
        Ok(transport) => transport,
        Err(fault) => return fault,
    };
    transport.send(get("/x")).await.expect_err("the call must fail")
}

#[tokio::test]
async fn a_call_carries_method_path_headers_and_body_and_gives_back_the_answer() {
    let server =
        StandIn::plain(|seen| Answer::Whole(201, vec![("x-id".into(), "7".into())], seen.body.clone())).await;
    let mut base = server.url();
    base.set_path("/below/");
    let transport = Transport::new(&base, &options()).unwrap();
    let every_byte: Vec<u8> = (0..=255).collect();
    let answer = transport
        .send(Request {
            method: Method::from_bytes(b"LIST").unwrap(),
            body: Some(SecretBytes::new(every_byte.clone())),
            ..get("/a%20b?list=true")
        })
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers["x-id"], "7");
    assert!(answer.body.same_as(&every_byte));
    let seen = server.seen().remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("LIST", "/below/a%20b?list=true")
    );
    assert_eq!(seen.header("x-vault-token"), Some(CANARY));
    assert_eq!(seen.body, every_byte);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_the_token_goes_nowhere_else() {
    let other = StandIn::plain(hello).await;
    let target = other.url().to_string();
    let server = StandIn::plain(move |_| Answer::json(307, "").with_header("location", &target)).await;
    let transport = Transport::new(&server.url(), &options()).unwrap();
    let answer = transport.send(get("/x")).await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(server.seen().len(), 1);
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused_and_one_at_the_cap_is_not() {
    let server = StandIn::plain(|seen| {
        let length = if seen.target == "/over" { 1001 } else { 1000 };
        Answer::Whole(200, vec![], vec![b'x'; length])
    })
    .await;
    let transport = Transport::new(
        &server.url(),
        &TransportOptions {
            max_body: 1000,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(transport.send(get("/at")).await.unwrap().body.len(), 1000);
    let fault = transport.send(get("/over")).await.unwrap_err();
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Permanent, Reason::RemoteTooLarge)
    );
}

#[tokio::test]
async fn a_cut_body_is_a_passing_fault_and_never_half_a_value() {
    let server = StandIn::plain(|_| Answer::Cut(vec![b'x'; 1000])).await;
    let fault = fault_of(&server.url(), options()).await;
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Transient, Reason::StoreUnavailable)
    );
}

#[tokio::test]
async fn a_hung_call_ends_at_its_deadline() {
    let server = StandIn::plain(|_| Answer::Hang).await;
    let start = Instant::now();
    let short = TransportOptions {
        deadline: Duration::from_millis(200),
        ..options()
    };
    let fault = fault_of(&server.url(), short).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Transient, Reason::StoreUnavailable)
    );
    assert!(fault.message.contains("did not answer within 0.2 s"), "{fault}");
}

#[tokio::test]
async fn calls_above_the_number_of_connections_wait_for_their_turn() {
    let server = StandIn::plain(|seen| {
        if seen.target == "/hang" {
            Answer::Hang
        } else {
            hello(seen)
        }
    })
    .await;
    let one = TransportOptions {
        connections: 1,
        deadline: Duration::from_millis(300),
        ..options()
    };
    let transport = Transport::new(&server.url(), &one).unwrap();
    let (hung, fine) = tokio::join!(transport.send(get("/hang")), transport.send(get("/fine")));
    assert_eq!(hung.unwrap_err().reason, Reason::StoreUnavailable);
    assert_eq!(fine.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_passing_faults() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let closed = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let fault = fault_of(&closed, options()).await;
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Transient, Reason::StoreUnavailable)
    );
    assert!(fault.message.contains("refused"), "{fault}");
    let fault = fault_of(&Url::parse("http://no-such-host.invalid").unwrap(), options()).await;
    assert_eq!(
        (fault.class, fault.reason),
        (Class::Transient, Reason::StoreUnavailable)
    );
    assert!(fault.message.contains("does not resolve"), "{fault}");
}

#[tokio::test]
async fn a_refused_address_is_never_dialled_by_name_literal_or_server_name() {
    let server = StandIn::plain(hello).await;
    let mapped = Url::parse(
        &server
            .url()
            .to_string()
            .replace("127.0.0.1", "[::ffff:127.0.0.1]"),
    )
    .unwrap();
    for base in [server.url(), server.url_by_name("localhost"), mapped] {
        for server_name in [None, Some("vault.test".to_owned())] {
            let strict = TransportOptions {
                addresses: Arc::default(),
                server_name,
                ..options()
            };
            let fault = fault_of(&base, strict).await;
            assert_eq!(
                (fault.class, fault.reason),
                (Class::Denied, Reason::AddressRefused),
                "{base}: {fault}"
            );
            assert!(
                fault.message.contains("loopback addresses are not allowed"),
                "{fault}"
            );
        }
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_address_that_is_denied_later_is_not_asked_any_more() {
    let server = StandIn::plain(hello).await;
    let addresses = Arc::new(loopback_allowed());
    let options = TransportOptions {
        addresses: Arc::clone(&addresses),
        ..options()
    };
    let transport = Transport::new(&server.url(), &options).unwrap();
    transport.send(get("/v1/first")).await.unwrap();
    let address = SocketAddr::new([127, 0, 0, 1].into(), server.url().port().unwrap());
    addresses.learn(&[address.into()]);
    let fault = transport.send(get("/v1/second")).await.unwrap_err();
    assert_eq!(fault.reason, Reason::AddressRefused, "{fault}");
    assert_eq!(
        server.seen().len(),
        1,
        "not by the connection that is open, either"
    );
    addresses.learn(&[]);
    transport.send(get("/v1/third")).await.unwrap();
}

#[tokio::test]
async fn only_the_given_ca_is_trusted() {
    let (server, ca) = StandIn::tls(&["localhost"], hello).await;
    let (_, other_ca) = StandIn::tls(&["localhost"], hello).await;
    let base = server.url_by_name("localhost");
    let with = |ca_pem| TransportOptions { ca_pem, ..options() };
    let transport = Transport::new(&base, &with(Some(ca))).unwrap();
    assert_eq!(transport.send(get("/x")).await.unwrap().status, StatusCode::OK);

    let fault = fault_of(&base, with(Some(other_ca))).await;
    assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::TlsFailed));
    assert!(fault.message.contains("not issued by a trusted CA"), "{fault}");

    let fault = fault_of(&base, with(Some(b"no pem".to_vec()))).await;
    assert_eq!(fault.reason, Reason::TlsFailed);
    assert!(fault.message.contains("no certificate"), "{fault}");

    let unverified = TransportOptions {
        verify: false,
        ..options()
    };
    let transport = Transport::new(&base, &unverified).unwrap();
    assert_eq!(transport.send(get("/x")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_name_fails_and_the_server_name_puts_it_right() {
    let (server, ca) = StandIn::tls(&["vault.test"], hello).await;
    for base in [server.url(), server.url_by_name("localhost")] {
        let with = |name: Option<&str>| TransportOptions {
            ca_pem: Some(ca.clone()),
            server_name: name.map(str::to_owned),
            ..options()
        };
        for name in [None, Some("other.test")] {
            let fault = fault_of(&base, with(name)).await;
            assert_eq!(fault.reason, Reason::TlsFailed);
            assert!(fault.message.contains("is for another name"), "{fault}");
        }
        let transport = Transport::new(&base, &with(Some("vault.test"))).unwrap();
        assert_eq!(transport.send(get("/x")).await.unwrap().status, StatusCode::OK);
    }
    let by_address = TransportOptions {
        server_name: Some("127.0.0.1".into()),
        ..options()
    };
    assert_eq!(
        fault_of(&server.url(), by_address).await.reason,
        Reason::SpecInvalid
    );
}

#[tokio::test]
async fn tls_is_not_spoken_with_a_plain_server() {
    let server = StandIn::plain(hello).await;
    let mut base = server.url();
    base.set_scheme("https").unwrap();
    let unverified = TransportOptions {
        verify: false,
        ..options()
    };
    let fault = fault_of(&base, unverified).await;
    assert_eq!(fault.reason, Reason::TlsFailed);
    assert!(fault.message.contains("does not speak TLS"), "{fault}");
}

#[tokio::test]
async fn addresses_that_are_no_base_are_refused() {
    let strict = || TransportOptions {
        plain_http_allowed: false,
        ..options()
    };
    for (base, reason) in [
        ("http://vault.test", Reason::InsecureRefused),
        ("ftp://vault.test", Reason::SpecInvalid),
        ("https://user:pass@vault.test", Reason::SpecInvalid),
        ("https://vault.test/?a=b", Reason::SpecInvalid),
    ] {
        let fault = fault_of(&Url::parse(base).unwrap(), strict()).await;
        assert_eq!(fault.reason, reason, "{base}");
        assert!(!fault.to_string().contains("pass@"), "{fault}");
    }
}

#[tokio::test]
async fn a_path_cannot_lead_to_another_host() {
    let server = StandIn::plain(hello).await;
    let transport = Transport::new(&server.url(), &options()).unwrap();
    for path in ["@evil.test/", ".evil.test/", "9/x", ""] {
        assert_eq!(
            transport.send(get(path)).await.unwrap_err().reason,
            Reason::SpecInvalid,
            "{path}"
        );
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn nothing_public_shows_a_credential() {
    let server = StandIn::plain(|_| Answer::json(200, CANARY).with_header("x-subject-token", CANARY)).await;
    let options = TransportOptions {
        identity: Some(Identity {
            certificate_pem: CANARY.into(),
            key_pem: CANARY.into(),
        }),
        ..options()
    };
    let mut shown = format!("{options:?} {:?}", options.identity);
    let fault = Transport::new(&server.url(), &options).unwrap_err();
    write!(shown, "{fault:?}").unwrap();

    let transport = Transport::new(&server.url(), &super::tests::options()).unwrap();
    let request = Request {
        body: Some(CANARY.into()),
        ..get("/x")
    };
    write!(shown, "{transport:?} {request:?}").unwrap();
    let answer = transport.send(request).await.unwrap();
    assert!(answer.body.same_as(CANARY.as_bytes()));
    write!(shown, "{answer:?} {:?}", credential_header(CANARY.as_bytes())).unwrap();
    write!(
        shown,
        "{:?}",
        credential_header(format!("{CANARY}\n").as_bytes()).unwrap_err()
    )
    .unwrap();
    assert!(!shown.contains(CANARY), "{shown}");
}
