//! No secret shows up in anything that can be printed.

use std::fmt::{Debug, Display};

use keyward_core::fault::Fault;

use super::super::BarbicanSessions;
use super::super::testing::{credential, gate, password, secret};
use super::*;
use crate::stores::pacing::Unpaced;
use keyward_stand_ins::http::{Answer, Seen};

fn silent(thing: &(impl Debug + ?Sized)) {
    assert!(!format!("{thing:?} {thing:#?}").contains(CANARY));
}

fn quiet(fault: &Fault) {
    silent(fault);
    shown(fault);
}

fn shown(thing: &impl Display) {
    assert!(!thing.to_string().contains(CANARY));
}

#[tokio::test]
async fn no_fault_repeats_what_a_server_said() {
    type Trouble = fn() -> Answer;
    let statuses: [Trouble; 8] = [
        || Answer::json(400, CANARY),
        || Answer::json(401, CANARY),
        || Answer::json(403, CANARY),
        || Answer::json(404, CANARY),
        || Answer::json(406, CANARY).with_header("x-openstack-request-id", &format!("<{CANARY}>")),
        || Answer::json(500, CANARY),
        || Answer::json(200, CANARY),
        || Answer::Cut(CANARY.into()),
    ];
    for trouble in statuses {
        let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
        cloud.state().login_fault = Some(trouble);
        quiet(&cloud.store().check().await.unwrap_err());
    }
    let faults: [fn(&Seen) -> Option<Answer>; 4] = [
        |_| Some(Answer::json(400, CANARY)),
        |_| Some(Answer::json(401, CANARY)),
        |_| Some(Answer::json(500, CANARY)),
        |_| Some(Answer::json(200, CANARY)),
    ];
    for fault in faults {
        let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
        cloud.state().fault = Some(fault);
        let store = cloud.store();
        quiet(&store.check().await.unwrap_err());
        quiet(&store.probe(&name("db")).await.unwrap_err());
        quiet(&store.read(&id(1)).await.err().unwrap());
        quiet(&store.find(&everything(""), &Unpaced).await.unwrap_err());
    }
}

#[tokio::test]
async fn no_printable_type_holds_a_secret() {
    let cloud = Cloud::start(vec![secret(1, "db", 1)]).await;
    let store = cloud.store();
    silent(&store.probe(&name("db")).await.unwrap());

    let gate = gate();
    silent(&gate.login(&["ada"], CANARY.as_bytes()));

    let wrong = BarbicanSessions::new(gate)
        .open(cloud.config(password(&format!("{CANARY}\u{0}"))))
        .ok()
        .unwrap();
    for _ in 0..2 {
        quiet(&wrong.check().await.unwrap_err());
    }
    let binary = cloud.config(credential(""));
    quiet(
        &BarbicanSessions::new(super::super::testing::gate())
            .open(binary)
            .err()
            .unwrap(),
    );
}
