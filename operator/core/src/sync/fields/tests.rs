//! Every shape of value, and that errors name fields and never values.

use super::*;
use crate::sync::allowance::MAX_READ;
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

fn made(extraction: &Extraction, payload: &Payload) -> Result<DataMap, FieldError> {
    extraction.apply(payload, Holder::Secret, &mut Effort::default())
}

fn taken(extraction: &Extraction, payload: &Payload) -> Vec<(String, String)> {
    shown(&made(extraction, payload).unwrap_or_else(|error| panic!("{error}")))
}

fn refused(extraction: &Extraction, payload: &Payload) -> FieldError {
    made(extraction, payload).err().expect("the extraction must fail")
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
    let keys = made(&whole("blob"), &Payload::Bytes(SecretBytes::new(bytes.clone())))
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
    for twice in [r#"{"a":{"k":"1","k":"2"}}"#, r#"{"a":{"k":"1","\u006b":null}}"#] {
        assert!(matches!(
            refused(&fields(vec![choice("a.k")]), &json(twice)),
            FieldError::NotFields(_)
        ));
    }
    for twice in [r#"{"k":"1","k":"2"}"#, r#"{"k":null,"k":"2"}"#] {
        assert!(matches!(
            refused(&Extraction::default(), &json(twice)),
            FieldError::NotFields(_)
        ));
    }
    let same = fields(vec![choice("a.k"), choice("b.k")]);
    let payload = json(r#"{"a":{"k":"1"},"b":{"k":"2"}}"#);
    assert!(matches!(refused(&same, &payload), FieldError::SameKey(_)));
}

#[test]
fn what_no_value_could_satisfy_is_refused_without_one() {
    let whole = |key: &str| Extraction {
        selection: FieldSelection::Whole { key: key.into() },
        prefix: "p".repeat(100),
        ..Extraction::default()
    };
    assert_eq!(whole(&"k".repeat(153)).check(), Ok(()));
    assert!(matches!(
        whole(&"k".repeat(154)).check(),
        Err(FieldError::Key(KeyError::Invalid(_)))
    ));
    assert_eq!(Extraction::default().check(), Ok(()));
    assert_eq!(fields(vec![choice("a.k"), choice("a.l")]).check(), Ok(()));
    assert!(matches!(
        fields(vec![choice("a.k"), choice("b.k")]).check(),
        Err(FieldError::SameKey(_))
    ));
    assert!(matches!(
        fields(vec![choice("a.user name")]).check(),
        Err(FieldError::Key(KeyError::Invalid(_)))
    ));
}

#[test]
fn a_value_that_is_too_large_ends_it_at_once_however_often_it_is_chosen() {
    let value = 4 * 1024 * 1024 - 16;
    let payload = json(&format!(r#"{{"a":"{}"}}"#, "x".repeat(value)));
    let choices = (0..256).map(|index| FieldChoice {
        key: Some(format!("k{index}")),
        ..choice("a")
    });
    let extraction = fields(choices.collect());
    let mut effort = Effort::default();
    assert_eq!(
        extraction.apply(&payload, Holder::Secret, &mut effort).err(),
        Some(KeyError::TooLarge(Holder::Secret).into())
    );
    // It was gone through to see that it is JSON, to find the field, and to take it once.
    assert_eq!(effort.read(MAX_READ - 3 * 4 * 1024 * 1024), Ok(()));
    // Templates work on more, and not on everything.
    let mut effort = Effort::default();
    assert_eq!(
        extraction.apply(&payload, Holder::Templates, &mut effort).err(),
        Some(KeyError::TooLarge(Holder::Templates).into())
    );
}

#[test]
fn values_that_come_to_nothing_are_paid_for() {
    let payload = json(&format!(r#"{{"a":"{}"}}"#, " ".repeat(1024 * 1024)));
    let choices = (0..256).map(|index| FieldChoice {
        key: Some(format!("k{index}")),
        decode: Some(Decode::Hex),
        ..choice("a")
    });
    let mut effort = Effort::default();
    effort.read(MAX_READ - 8 * 1024 * 1024).unwrap();
    assert_eq!(
        fields(choices.collect())
            .apply(&payload, Holder::Secret, &mut effort)
            .err(),
        Some(FieldError::TooMuchToRead)
    );
}

#[test]
fn each_level_is_walked_once_for_all_fields_below_it() {
    let leaves: Vec<_> = (0..256).map(|index| format!(r#""f{index}":"v""#)).collect();
    let depth = MAX_FIELD_DEPTH - 1;
    let text = format!(
        "{}{{{}}}{}",
        r#"{"d":"#.repeat(depth),
        leaves.join(","),
        "}".repeat(depth)
    );
    let path = |index| choice(&format!("{}f{index}", "d.".repeat(depth)));
    let extraction = fields((0..256).map(path).collect());
    let reads = text.len() * (1 + MAX_FIELD_DEPTH) + 256 * r#""v""#.len();
    for (left, enough) in [(reads, true), (reads / 2, false)] {
        let mut effort = Effort::default();
        effort.read(MAX_READ - left).unwrap();
        let made = extraction.apply(&json(&text), Holder::Secret, &mut effort);
        assert_eq!(made.map(|keys| keys.len()).ok(), enough.then_some(256));
    }
}

#[test]
fn empty_and_absent_members_are_counted() {
    for value in ["\"\"", "null"] {
        let members: Vec<_> = (0..=MAX_KEYS)
            .map(|index| format!("\"{index}\":{value}"))
            .collect();
        let payload = json(&format!("{{{}}}", members.join(",")));
        assert_eq!(
            refused(&Extraction::default(), &payload),
            KeyError::TooMany.into(),
            "{value}"
        );
    }
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

#[test]
fn no_error_forges_a_line() {
    let name = "a\n2026-01-01 INFO synced";
    let half = json("{\"a\\n2026-01-01 INFO synced\":\"\\ud800\"}");
    let chosen = fields(vec![FieldChoice {
        key: Some("k".into()),
        ..choice(name)
    }]);
    for error in [
        refused(&Extraction::default(), &half),
        refused(&chosen, &half),
        refused(&chosen, &json("{}")),
    ] {
        let shown = error.to_string();
        assert!(!shown.contains('\n') && shown.contains(r"a\n2026"), "{shown}");
    }
}

proptest! {
    #[test]
    fn a_path_survives_being_written(segments in proptest::collection::vec(r"[a-z.\\]{1,4}", 1..5)) {
        let path = FieldPath::of(segments);
        prop_assert_eq!(path.to_string().parse::<FieldPath>(), Ok(path));
    }

    #[test]
    fn every_string_field_comes_out_as_it_went_in(name in "[a-z]{1,8}", text: String) {
        let payload = Payload::Json(SecretBytes::new(serde_json::to_vec(&serde_json::json!({&name: &text})).unwrap()));
        prop_assert_eq!(taken(&fields(vec![choice(&name)]), &payload), vec![(name, text)]);
    }
}
