//! The API server goes away and comes back: no Secret is lost, and no value is read over and over meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use keyward::runtime::clock;
use keyward_tests::harness::{Case, Suite};
use keyward_tests::operator::Settings;
use keyward_tests::rig::kubernetes::Parts;
use keyward_tests::rig::poll;
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use super::many::Many;
use crate::scene::{SOON, Scene};

/// Objects of each test.
const OBJECTS: usize = 20;

/// The longest back-off from the API server, and some time to work.
const RECOVERED_WITHIN: Duration = Duration::from_mins(2);

pub(super) fn register(suite: &mut Suite) {
    keyward_tests::vault_tests!(
        suite,
        an_absence_of_the_api_server_is_waited_out,
        an_operator_that_cannot_renew_its_lease_ends_and_its_successor_goes_on,
    );
}

async fn an_absence_of_the_api_server_is_waited_out(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let mut settings = Settings::inside(&scene.namespace);
    settings.arguments.push("--leader-elect=false".to_owned());
    let operator = scene.operator_with(&settings).await?;
    let many = Many::new(&scene, "away", OBJECTS);
    many.write("first").await?;
    many.declare("vault", &json!({"refresh": {"interval": "5s"}}))
        .await?;
    many.hold("first").await?;
    many.reason("Synced").await?;

    let mark = scene.vault.audit().mark()?;
    let away = Instant::now();
    kubernetes.stop_api_server()?;
    many.write("second").await?;
    // Every new value is seen while there is nowhere to write it.
    poll::until("reads of the new values", SOON, async || {
        value_reads(&scene, mark).is_ok_and(|reads| reads >= OBJECTS)
    })
    .await?;
    let back = kubernetes.start_api_server().await;
    ensure!(
        operator.process().ended()?.is_none(),
        "the operator ended meanwhile"
    );
    back?;
    poll::until("all to hold the new value", RECOVERED_WITHIN, async || {
        many.count_holding("second")
            .await
            .is_ok_and(|count| count == OBJECTS)
    })
    .await?;
    many.reason("Synced").await?;
    // A value is not kept while it cannot be written; its next reading waits for the back-off.
    let paced = 5 + usize::try_from(away.elapsed().as_secs())? / 7;
    let reads = value_reads(&scene, mark)?;
    ensure!(
        reads <= paced * OBJECTS,
        "{reads} values were read for {OBJECTS} changes"
    );
    assert_eq!(operator.get("/readyz").await?, "leading");
    Ok(())
}

async fn an_operator_that_cannot_renew_its_lease_ends_and_its_successor_goes_on(case: Case) -> Result<()> {
    let kubernetes = case.private_kubernetes(Parts::ApiServer).await?;
    let scene = Scene::on(&case, &kubernetes, case.vault().await?, Kv::V2).await?;
    let operator = scene.operator().await?;
    let many = Many::new(&scene, "led", OBJECTS);
    many.write("first").await?;
    many.declare("vault", &json!({})).await?;
    many.hold("first").await?;
    many.reason("Synced").await?;

    kubernetes.stop_api_server()?;
    let ended = poll::some("the end of the operator", SOON, async || {
        operator.process().ended().ok()?
    })
    .await?;
    ensure!(!ended.success(), "it ended as if it had been asked to: {ended}");
    // Kubernetes would start it again, also before the API server is back.
    let (restarted, mark) = (clock::now(), scene.vault.audit().mark()?);
    operator.process().start()?;
    kubernetes.start_api_server().await?;
    operator.ready().await?;
    many.looked_since(&operator, restarted).await?;
    assert_eq!(value_reads(&scene, mark)?, 0, "what is known is not read again");
    assert_eq!(many.count_holding("first").await?, OBJECTS);
    many.write("second").await?;
    many.refresh().await?;
    many.hold("second").await
}

fn value_reads(scene: &Scene<'_>, mark: keyward_tests::rig::Mark) -> Result<usize> {
    let requests = scene.vault.audit().since(mark)?;
    Ok(requests
        .iter()
        .filter(|request| request.is_value_read(&scene.mount))
        .count())
}
