//! The node that workloads land on, and how kwok plays its kubelet.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::rig::poll;

/// A pod with this label, set to [`NEVER_READY`], runs and never becomes ready: the way to a rollout that hangs.
pub const READINESS_LABEL: &str = "rig.keyward.dev/readiness";

/// See [`READINESS_LABEL`].
pub const NEVER_READY: &str = "never";

const NODE: &str = "rig-node";
const READY_WITHIN: Duration = Duration::from_mins(2);

/// Creates the node and waits until kwok has made it ready.
pub(super) async fn register(client: &kube::Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let capacity = json!({ "cpu": "1000", "memory": "1Ti", "pods": "100000" });
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": NODE, "labels": { "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux" } },
        "status": { "allocatable": capacity, "capacity": capacity },
    }))?;
    nodes
        .create(&PostParams::default(), &node)
        .await
        .context("create the node")?;
    poll::until("the node to be ready", READY_WITHIN, async || {
        nodes.get(NODE).await.is_ok_and(|node| is_ready(&node))
    })
    .await
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// What kwok does, as a stream of its `Stage` objects. Without any it would not start.
pub(super) fn stages() -> String {
    let not_deleted = expression(".metadata.deletionTimestamp", "DoesNotExist", &[]);
    let pending = expression(".status.phase", "In", &["Pending"]);
    let readiness = format!(".metadata.labels[\"{READINESS_LABEL}\"]");
    let stages = [
        stage(
            "node-ready",
            "Node",
            &json!([expression(
                ".status.conditions.[] | select( .type == \"Ready\" ) | .status",
                "NotIn",
                &["True"]
            )]),
            &json!({ "statusTemplate": NODE_READY }),
        ),
        stage(
            "pod-ready",
            "Pod",
            &json!([
                not_deleted,
                pending,
                expression(&readiness, "NotIn", &[NEVER_READY])
            ]),
            &json!({ "statusTemplate": pod_running(true) }),
        ),
        stage(
            "pod-never-ready",
            "Pod",
            &json!([not_deleted, pending, expression(&readiness, "In", &[NEVER_READY])]),
            &json!({ "statusTemplate": pod_running(false) }),
        ),
        stage(
            "pod-completed",
            "Pod",
            &json!([
                not_deleted,
                expression(".status.phase", "In", &["Running"]),
                expression(".metadata.ownerReferences.[].kind", "In", &["Job"]),
            ]),
            &json!({ "statusTemplate": POD_COMPLETED }),
        ),
        stage(
            "pod-deleted",
            "Pod",
            &json!([expression(".metadata.deletionTimestamp", "Exists", &[])]),
            &json!({ "delete": true }),
        ),
    ];
    // JSON documents are YAML documents.
    stages
        .iter()
        .map(|stage| format!("---\n{stage}\n"))
        .collect::<Vec<_>>()
        .concat()
}

fn stage(name: &str, kind: &str, expressions: &Value, next: &Value) -> Value {
    json!({
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": { "name": name },
        "spec": {
            "resourceRef": { "apiGroup": "v1", "kind": kind },
            "selector": { "matchExpressions": expressions },
            "next": next,
        },
    })
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    let mut expression = json!({ "key": key, "operator": operator });
    if !values.is_empty() {
        expression["values"] = json!(values);
    }
    expression
}

const NODE_READY: &str = r#"
{{ $now := Now | Quote }}
phase: Running
conditions:
- { type: Ready, status: "True", reason: KubeletReady, message: "", lastHeartbeatTime: {{ $now }}, lastTransitionTime: {{ $now }} }
addresses:
- { type: InternalIP, address: 127.0.0.1 }
"#;

fn pod_running(ready: bool) -> String {
    let (ready, condition) = if ready {
        ("true", "True")
    } else {
        ("false", "False")
    };
    POD_RUNNING
        .replace("READY", ready)
        .replace("CONDITION", condition)
}

const POD_RUNNING: &str = r#"
{{ $now := Now | Quote }}
phase: Running
startTime: {{ $now }}
hostIP: 127.0.0.1
podIP: 127.0.0.1
podIPs:
- ip: 127.0.0.1
conditions:
- { type: Initialized, status: "True", lastTransitionTime: {{ $now }} }
- { type: ContainersReady, status: "CONDITION", lastTransitionTime: {{ $now }} }
- { type: Ready, status: "CONDITION", lastTransitionTime: {{ $now }} }
containerStatuses:
{{ range .spec.containers }}
- { name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: READY, started: true, restartCount: 0, state: { running: { startedAt: {{ $now }} } } }
{{ end }}
"#;

const POD_COMPLETED: &str = r#"
{{ $now := Now | Quote }}
phase: Succeeded
containerStatuses:
{{ range .spec.containers }}
- { name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: false, started: false, restartCount: 0, state: { terminated: { exitCode: 0, reason: Completed, startedAt: {{ $now }}, finishedAt: {{ $now }} } } }
{{ end }}
"#;
