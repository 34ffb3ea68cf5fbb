//! What is done for a name that has no object to work on: one that cannot be parsed is told so, and what one that is gone
//! has left behind is given up, if it was meant to go.

use keyward_core::sync::departure::{self, Trace};
use keyward_crds::SyncedSecret;

use super::super::index::{Departed, Unread, target_of};
use super::{KIND, SyncController};
use crate::cluster::conditions::{self, Wanted};
use crate::cluster::events::{EventKind, Regarding};
use crate::cluster::{ObjectKey, StatusWrite};
use crate::runtime::clock;
use crate::runtime::metrics::Outcome as Counted;
use crate::stores::Outcome;

impl SyncController {
    pub(super) async fn reconcile_without_object(&self, key: &ObjectKey) {
        if let Some(unread) = self.index.unread(key) {
            if let Err(fault) = self.tell_unread(key, &unread).await {
                let failures = unread.failures + 1;
                self.index
                    .remember_unread(key, |unread| unread.failures = failures);
                self.again(key, &fault, failures);
            }
        } else if let Err(fault) = self.release_departed(key).await {
            self.again(key, &fault, 1);
        }
    }

    /// Gives up the Secrets that an object has written before the one that it keeps now.
    pub(super) async fn release_others(&self, key: &ObjectKey, object: &SyncedSecret) -> Outcome<()> {
        let kept = target_of(key, object);
        for secret in self.writer.secrets.owned_by(key) {
            if secret != kept {
                let deed = self.writer.release(key, &secret).await?;
                self.count(deed, key, &secret);
            }
        }
        Ok(())
    }

    /// Gives up every Secret that carries the mark of an object that is gone.
    async fn release_departed(&self, key: &ObjectKey) -> Outcome<()> {
        let seen = match self.index.departed(key) {
            Some(Departed::LeftInPlace) => return Ok(()),
            Some(Departed::Seen(made)) => Some(made),
            None => None,
        };
        let marked = self.writer.secrets.owned_by(key);
        if marked.is_empty() {
            self.index.forget(key);
            return Ok(());
        }
        let definition = self.writer.reader.definition().await?;
        let mut left = false;
        for secret in marked {
            let Some(existing) = self.writer.reader.secret(&secret).await? else {
                continue;
            };
            let trace = seen.map_or(Trace::Written(existing.written_at), Trace::Seen);
            if departure::was_meant(definition, trace) {
                let remains = self.writer.give_up(key, &secret, &existing).await?;
                self.count(remains.deed, key, &secret);
            } else {
                left = true;
            }
        }
        if left {
            tracing::warn!(object = %key, "its kind was removed, or installed anew since: its Secrets are left in place");
            self.index.leave_in_place(key);
        } else {
            self.index.forget(key);
        }
        Ok(())
    }

    /// Says of an object that it cannot be parsed, and touches nothing else of its status.
    async fn tell_unread(&self, key: &ObjectKey, unread: &Unread) -> Outcome<()> {
        let fault = unread.object.fault();
        self.metrics.reconciled(KIND, Counted::Failure);
        self.metrics.failed(KIND, fault.reason);
        let meta = &unread.object.metadata;
        let uid = meta.uid.as_deref().unwrap_or_default();
        let message = fault.to_string();
        let wanted = Wanted::failing(&fault, &message, meta.generation.unwrap_or_default());
        let old = unread.object.conditions.as_deref();
        let mut new = old.unwrap_or_default().to_vec();
        if !conditions::set(&mut new, &wanted, clock::now()) {
            return Ok(());
        }
        let written = self
            .status
            .write_conditions::<SyncedSecret>(key, meta, old.is_some(), &new)
            .await?;
        if let StatusWrite::Written(version) = written {
            self.metrics.status_written(KIND);
            self.index.remember_unread(key, |unread| {
                unread.object.metadata.resource_version = Some(version);
                unread.object.conditions = Some(new);
                unread.failures = 0;
            });
        }
        let regarding = Regarding::of::<SyncedSecret>(key.clone(), uid);
        self.events
            .publish(regarding, EventKind::Warning, fault.reason, &message);
        Ok(())
    }
}
