//! Every way in which a Secret can be somebody else's, and that nothing is taken without consent.

use super::*;
use proptest::prelude::*;

const US: &str = "keyward";

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// Managers written as `name` where they apply and `name!` where they update.
fn owned(keys: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<Manager>> {
    let manager = |text: &&str| Manager {
        name: text.trim_end_matches('!').to_owned(),
        applies: !text.ends_with('!'),
    };
    keys.iter()
        .map(|(key, owners)| ((*key).to_owned(), owners.iter().map(manager).collect()))
        .collect()
}

fn ours(keys: &[(&str, &[&str])]) -> Existing {
    Existing {
        uid: "u1".into(),
        secret_type: OPAQUE.into(),
        immutable: false,
        deleting: false,
        marked_for: Some("db".into()),
        whole: true,
        keys: owned(keys),
    }
}

fn foreign(keys: &[(&str, &[&str])]) -> Existing {
    Existing {
        marked_for: None,
        whole: false,
        ..ours(keys)
    }
}

fn wanting(existing: Option<&Existing>, keys: &[&str], adoption: &Adoption) -> Ownership {
    let keys = set(keys);
    decide(
        existing,
        &Desired {
            object: "db",
            field_manager: US,
            secret_type: OPAQUE,
            keys: &keys,
            adoption,
            written: None,
        },
    )
}

fn reason(ownership: Ownership) -> Reason {
    match ownership {
        Ownership::Refused(fault) => fault.reason,
        other => panic!("must be refused: {other:?}"),
    }
}

fn updated(ownership: Ownership) -> Update {
    match ownership {
        Ownership::Update(update) => update,
        other => panic!("must be an update: {other:?}"),
    }
}

#[test]
fn nothing_there_is_created_and_ours_is_updated() {
    assert_eq!(wanting(None, &["a"], &Adoption::Never), Ownership::Create);
    let update = updated(wanting(
        Some(&ours(&[("a", &[US]), ("b", &[US]), ("x", &["helm"])])),
        &["a"],
        &Adoption::Never,
    ));
    assert_eq!(
        update,
        Update {
            whole: true,
            remove: set(&["b"]),
            take: set(&[])
        }
    );
}

#[test]
fn a_foreign_secret_needs_consent() {
    let existing = foreign(&[("x", &["helm"])]);
    assert_eq!(
        reason(wanting(Some(&existing), &["a"], &Adoption::Never)),
        Reason::SecretNotOwned
    );
    let update = updated(wanting(Some(&existing), &["a"], &Adoption::AddKeys));
    assert_eq!(
        update,
        Update {
            whole: false,
            remove: set(&[]),
            take: set(&[])
        }
    );
    assert_eq!(
        reason(wanting(Some(&existing), &["x"], &Adoption::AddKeys)),
        Reason::KeyOwnedByOther
    );
    let take = updated(wanting(
        Some(&existing),
        &["a", "x"],
        &Adoption::TakeKeys(set(&["x"])),
    ));
    assert_eq!(take.take, set(&["x"]));
    assert_eq!(
        reason(wanting(Some(&existing), &["x"], &Adoption::TakeKeys(set(&["y"])))),
        Reason::KeyOwnedByOther
    );
}

#[test]
fn a_key_without_an_owner_is_still_somebody_elses() {
    let existing = foreign(&[("x", &[])]);
    assert_eq!(
        reason(wanting(Some(&existing), &["x"], &Adoption::AddKeys)),
        Reason::KeyOwnedByOther
    );
}

#[test]
fn a_hand_edit_of_ours_is_taken_back_and_a_declared_key_is_not() {
    let edited = ours(&[("a", &["kubectl-edit!"]), ("b", &[US])]);
    assert_eq!(
        updated(wanting(Some(&edited), &["a", "b"], &Adoption::Never)).take,
        set(&["a"])
    );
    let declared = ours(&[("a", &["argocd"]), ("b", &[US])]);
    let Ownership::Refused(fault) = wanting(Some(&declared), &["a", "b"], &Adoption::Never) else {
        panic!("must be refused");
    };
    assert_eq!(fault.reason, Reason::KeyOwnedByOther);
    assert!(fault.message.contains("`a` is owned by argocd"), "{fault}");
    let shared = ours(&[("a", &[US, "argocd"])]);
    assert_eq!(
        reason(wanting(Some(&shared), &["a"], &Adoption::Never)),
        Reason::KeyOwnedByOther
    );
    let posing = ours(&[("a", &["keyward!"])]);
    assert_eq!(
        updated(wanting(Some(&posing), &["a"], &Adoption::Never)).take,
        set(&["a"])
    );
}

#[test]
fn what_somebody_added_to_our_secret_is_not_a_hand_edit_of_ours() {
    let existing = ours(&[("a", &["kubectl-edit!"]), ("x", &["controller!"])]);
    let (keys, had) = (set(&["a", "x"]), set(&["a"]));
    let wanting_after = |uid| {
        let desired = Desired {
            object: "db",
            field_manager: US,
            secret_type: OPAQUE,
            keys: &keys,
            adoption: &Adoption::Never,
            written: Some(LastWrite { uid, keys: &had }),
        };
        decide(Some(&existing), &desired)
    };
    let Ownership::Refused(fault) = wanting_after("u1") else {
        panic!("`x` was never ours");
    };
    assert_eq!(fault.reason, Reason::KeyOwnedByOther);
    assert!(fault.message.contains("`x` is owned by controller"), "{fault}");
    assert!(!fault.message.contains("`a`"), "{fault}");
    // What a backup brought back carries our mark and the backup's hand on every key.
    assert_eq!(updated(wanting_after("u0")).take, keys);
}

#[test]
fn a_guest_does_not_take_edited_keys() {
    let guest = Existing {
        whole: false,
        ..ours(&[("a", &["kubectl-edit!"]), ("b", &[US])])
    };
    assert_eq!(
        reason(wanting(Some(&guest), &["a", "b"], &Adoption::AddKeys)),
        Reason::KeyOwnedByOther
    );
    assert!(!updated(wanting(Some(&guest), &["b"], &Adoption::AddKeys)).whole);
}

#[test]
fn another_object_of_ours_is_respected() {
    let existing = Existing {
        marked_for: Some("web".into()),
        ..ours(&[("a", &[US])])
    };
    for adoption in [
        Adoption::Never,
        Adoption::AddKeys,
        Adoption::TakeKeys(set(&["a"])),
    ] {
        assert_eq!(
            reason(wanting(Some(&existing), &["a"], &adoption)),
            Reason::SecretNotOwned
        );
    }
}

#[test]
fn a_lost_mark_is_forgiven_on_the_secret_we_wrote() {
    let keys = set(&["a"]);
    let desired = |uid: Option<&'static str>| Desired {
        object: "db",
        field_manager: US,
        secret_type: OPAQUE,
        keys: &keys,
        adoption: &Adoption::Never,
        written: uid.map(|uid| LastWrite { uid, keys: &keys }),
    };
    let stripped = Existing {
        marked_for: None,
        ..ours(&[("a", &[US])])
    };
    assert!(updated(decide(Some(&stripped), &desired(Some("u1")))).whole);
    assert_eq!(
        reason(decide(Some(&stripped), &desired(Some("u2")))),
        Reason::SecretNotOwned
    );
    assert_eq!(
        reason(decide(Some(&stripped), &desired(None))),
        Reason::SecretNotOwned
    );
    let taken = Existing {
        keys: owned(&[("a", &["helm"])]),
        ..stripped
    };
    assert_eq!(
        reason(decide(Some(&taken), &desired(Some("u1")))),
        Reason::SecretNotOwned
    );
}

#[test]
fn types_and_immutability_refuse() {
    let of_type = |secret_type: &str| Existing {
        secret_type: secret_type.into(),
        ..ours(&[("a", &[US])])
    };
    for refused in REFUSED_TYPES {
        let keys = set(&["a"]);
        let desired = Desired {
            object: "db",
            field_manager: US,
            secret_type: refused,
            keys: &keys,
            adoption: &Adoption::AddKeys,
            written: None,
        };
        assert_eq!(reason(decide(None, &desired)), Reason::TypeRefused, "{refused}");
        let existing = Existing {
            marked_for: None,
            whole: false,
            ..of_type(refused)
        };
        assert_eq!(
            reason(wanting(Some(&existing), &["b"], &Adoption::AddKeys)),
            Reason::TypeRefused,
            "{refused}"
        );
    }
    assert_eq!(
        reason(wanting(
            Some(&of_type("kubernetes.io/tls")),
            &["a"],
            &Adoption::Never
        )),
        Reason::TypeConflict
    );
    let guest = Existing {
        marked_for: None,
        whole: false,
        ..of_type("kubernetes.io/tls")
    };
    assert!(!updated(wanting(Some(&guest), &["b"], &Adoption::AddKeys)).whole);
    let immutable = Existing {
        immutable: true,
        ..ours(&[("a", &[US])])
    };
    assert_eq!(
        reason(wanting(Some(&immutable), &["a"], &Adoption::Never)),
        Reason::SecretImmutable
    );
    let deleting = Existing {
        deleting: true,
        ..ours(&[("a", &[US])])
    };
    assert_eq!(
        reason(wanting(Some(&deleting), &["a"], &Adoption::Never)),
        Reason::Conflict
    );
}

#[test]
fn removal_leaves_what_others_have() {
    assert_eq!(removal(&ours(&[("a", &[US])]), "db", US), Removal::Secret);
    assert_eq!(
        removal(&ours(&[("a", &[US]), ("b", &["helm"])]), "db", US),
        Removal::Keys
    );
    assert_eq!(
        removal(
            &Existing {
                whole: false,
                ..ours(&[("a", &[US])])
            },
            "db",
            US
        ),
        Removal::Keys
    );
    assert_eq!(removal(&foreign(&[("a", &["helm"])]), "db", US), Removal::Nothing);
    assert_eq!(removal(&ours(&[("a", &[US])]), "other", US), Removal::Nothing);
}

fn any_existing() -> impl Strategy<Value = Existing> {
    let manager = (
        prop_oneof![Just(US), Just("helm"), Just("kubectl")],
        any::<bool>(),
    )
        .prop_map(|(name, applies)| Manager {
            name: name.to_owned(),
            applies,
        });
    let keys = proptest::collection::btree_map("[abc]", proptest::collection::btree_set(manager, 0..3), 0..3);
    (keys, proptest::option::of("db|web"), any::<bool>(), any::<bool>()).prop_map(
        |(keys, marked_for, whole, immutable)| Existing {
            immutable,
            marked_for,
            whole,
            keys,
            ..ours(&[])
        },
    )
}

proptest! {
    #[test]
    fn no_applied_key_is_taken_without_consent(
        existing in any_existing(),
        keys in proptest::collection::btree_set("[abc]", 0..3),
        given in proptest::collection::btree_set("[abc]", 0..2),
    ) {
        let wanted: Vec<&str> = keys.iter().map(String::as_str).collect();
        if let Ownership::Update(update) = wanting(Some(&existing), &wanted, &Adoption::TakeKeys(given.clone())) {
            for (key, owners) in &existing.keys {
                let applied = owners.iter().any(|owner| owner.applies && owner.name != US);
                if keys.contains(key) && applied {
                    prop_assert!(given.contains(key), "{}", key);
                }
                if !owners.iter().any(|owner| owner.is(US)) {
                    prop_assert!(!update.remove.contains(key), "{}", key);
                }
            }
            prop_assert!(update.take.is_subset(&keys));
        }
    }

    #[test]
    fn without_consent_only_marked_secrets_are_touched(existing in any_existing()) {
        let touched = matches!(wanting(Some(&existing), &["a"], &Adoption::Never), Ownership::Update(_));
        prop_assert!(!touched || existing.marked_for.as_deref() == Some("db"));
    }
}
