//! A new value at the store.

use anyhow::Result;
use futures::FutureExt as _;

use super::{Shown, Step, WITHIN};
use crate::demo::screen::seconds;
use crate::demo::seeds::{self, OPENSTACK, Place};
use crate::demo::stage::Stage;

pub(super) const A_CHANGE_ARRIVES: Step = Step {
    name: "An upstream change arrives",
    says: "Somebody gives nova a new password in Vault, and tells nobody.",
    within: WITHIN,
    show: |stage| show(stage).boxed(),
};

const PASSWORDS: Place = (OPENSTACK, "service-passwords");

async fn show(stage: &Stage) -> Result<Shown> {
    let password = seeds::password();
    seeds::set_service_password(&stage.fleet.vault, "nova", &password).await?;
    let took = stage.holds(PASSWORDS, "nova", password.as_bytes()).await?;
    Ok(Shown {
        headline: format!(
            "the Secret had the new password {} after Vault; the example looks every 5 s",
            seconds(took)
        ),
        transcript: stage
            .kubectl
            .show(&["-n", "openstack", "get", "kwss", "service-passwords"])
            .await?,
    })
}
