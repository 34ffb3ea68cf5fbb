//! Every shape of value, and that errors name fields and never values.

use super::*;
use proptest::prelude::*;

fn choice(field: &str) -> FieldChoice {
    FieldChoice {
        field: field.parse().unwrap(),
        key: None,
        decode: None,
    }
}

fn fields(choices: Vec<FieldChoice>) -> Extraction {
    Extraction {
        selection: FieldSelection::Fields(choices),
        ..Extraction::default()
    }
}

fn json(text: &str) -> Payload {
    Payload::Json(SecretBytes::from(text))
}

fn shown(keys: &DataMap) -> Vec<(String, String)> {
    keys.iter()
        .map(|(k, v)| (k.to_string(), v.expose_str().unwrap().to_owned()))
        .collect()
}

fn taken(extraction: &Extraction, payload: &Payload) -> Vec<(String, String)> {
    shown(
        &extraction
            .apply(payload)
            .unwrap_or_else(|error| panic!("{error}")),
    )
}

fn refused(extraction: &Extraction, payload: &Payload) -> FieldError {
    extraction.apply(payload).err().expect("the extraction must fail")
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn each_kind_of_field_has_one_text() {
    let payload = json(
        r#"{"s":"a\"b\n","n":1.0,"big":123456789012345678901234567890,"t":true,"z":null,"o":{ "x" : [1, 2.50] },"e":""}"#,
    );
    assert_eq!(
        taken(&Extraction::default(), &payload),
        pairs(&[
            ("big", "123456789012345678901234567890"),
            ("e", ""),
            ("n", "1.0"),
            ("o", r#"{"x":[1,2.50]}"#),
            ("s", "a\"b\n"),
            ("t", "true"),
        ])
    );
}

#[test]
fn paths_reach_into_objects_and_arrays() {
    let payload = json(r#"{"a":{"b.c":[{"d":"deep"}],"0":"zero"}}"#);
    let named = FieldChoice {
        key: Some("value".into()),
        ..choice(r"a.b\.c.0.d")
    };
    assert_eq!(taken(&fields(vec![named]), &payload), pairs(&[("value", "deep")]));
    assert_eq!(
        taken(&fields(vec![choice("a.0")]), &payload),
        pairs(&[("0", "zero")])
    );
    for absent in ["b", "a.x", r"a.b\.c.1", r"a.b\.c.00", r"a.b\.c.0.d.e"] {
        assert_eq!(
            refused(&fields(vec![choice(absent)]), &payload),
            FieldError::NotFound(absent.parse().unwrap())
        );
    }
}

#[test]
fn null_is_absent() {
    let payload = json(r#"{"a":null}"#);
    assert_eq!(taken(&Extraction::default(), &payload), pairs(&[]));
    assert!(matches!(
        refused(&fields(vec![choice("a")]), &payload),
        FieldError::NotFound(_)
    ));
}

#[test]
fn keys_get_the_prefix_and_fields_their_own_decoding() {
    let extraction = Extraction {
        prefix: "db-".into(),
        decode: Decode::Base64,
        ..fields(vec![
            choice("b"),
            FieldChoice {
                decode: Some(Decode::Hex),
                ..choice("h")
            },
        ])
    };
    let payload = json(r#"{"b":"aGk=","h":"6869"}"#);
    assert_eq!(
        taken(&extraction, &payload),
        pairs(&[("db-b", "hi"), ("db-h", "hi")])
    );
}

#[test]
fn plain_bytes_need_a_key_and_may_hold_json() {
    let whole = |key: &str| Extraction {
        selection: FieldSelection::Whole { key: key.into() },
        ..Extraction::default()
    };
    let bytes: Vec<u8> = (0..=255).collect();
    let keys = whole("blob")
        .apply(&Payload::Bytes(SecretBytes::new(bytes.clone())))
        .ok()
        .unwrap();
    assert_eq!(keys["blob"].expose(), bytes);
    assert_eq!(
        refused(&Extraction::default(), &Payload::Bytes(SecretBytes::from("x"))),
        FieldError::KeyMissing
    );
    let held = Payload::Bytes(SecretBytes::from(r#" {"a": "1"} "#));
    assert_eq!(taken(&fields(vec![choice("a")]), &held), pairs(&[("a", "1")]));
    let text = Payload::Bytes(SecretBytes::from("canary"));
    assert!(matches!(
        refused(&fields(vec![choice("a")]), &text),
        FieldError::NotFields(_)
    ));
    assert_eq!(
        taken(&whole("all"), &json(r#"{ "a": 1.0 }"#)),
        pairs(&[("all", r#"{"a":1.0}"#)])
    );
}

#[test]
fn container_parts_are_fields() {
    let payload = || {
        Payload::Parts(
            [("certificate", "C"), ("private_key", "K")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
        )
    };
    let renamed = FieldChoice {
        key: Some("tls.crt".into()),
        ..choice("certificate")
    };
    assert_eq!(
        taken(&fields(vec![renamed]), &payload()),
        pairs(&[("tls.crt", "C")])
    );
    assert_eq!(taken(&Extraction::default(), &payload()).len(), 2);
    assert!(matches!(
        refused(&fields(vec![choice("intermediates")]), &payload()),
        FieldError::NotFound(_)
    ));
    let whole = Extraction {
        selection: FieldSelection::Whole { key: "k".into() },
        ..Extraction::default()
    };
    assert_eq!(refused(&whole, &payload()), FieldError::ContainerAsWhole);
}

#[test]
fn ambiguous_values_are_refused() {
    let twice = json(r#"{"a":{"k":"1","k":"2"}}"#);
    assert!(matches!(
        refused(&fields(vec![choice("a.k")]), &twice),
        FieldError::NotFields(_)
    ));
    let same = fields(vec![choice("a.k"), choice("b.k")]);
    let payload = json(r#"{"a":{"k":"1"},"b":{"k":"2"}}"#);
    assert!(matches!(refused(&same, &payload), FieldError::SameKey(_)));
}

#[test]
fn no_error_shows_a_value() {
    let payload = json(r#"{"a":"canary-value","canary name":"x"}"#);
    let hex = Extraction {
        decode: Decode::Hex,
        ..fields(vec![choice("a")])
    };
    for error in [
        refused(&hex, &payload),
        refused(&fields(vec![choice("a.b")]), &payload),
    ] {
        let fault = Fault::from(error.clone());
        assert!(!format!("{fault} {error:?}").contains("canary"), "{fault}");
    }
    assert_eq!(
        Fault::from(refused(&Extraction::default(), &payload)).reason,
        Reason::KeyInvalid
    );
}

proptest! {
    #[test]
    fn a_path_survives_being_written(segments in proptest::collection::vec(r"[a-z.\\]{1,4}", 1..5)) {
        let path = FieldPath(segments);
        prop_assert_eq!(path.to_string().parse::<FieldPath>(), Ok(path));
    }

    #[test]
    fn every_string_field_comes_out_as_it_went_in(name in "[a-z]{1,8}", text: String) {
        let payload = Payload::Json(SecretBytes::new(serde_json::to_vec(&serde_json::json!({&name: &text})).unwrap()));
        prop_assert_eq!(taken(&fields(vec![choice(&name)]), &payload), vec![(name, text)]);
    }
}
