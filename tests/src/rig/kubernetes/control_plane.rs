//! Starts the programs of a control plane, each with the flags that a loopback cluster needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rcgen::KeyPair;
use serde_json::json;

use super::access::Access;
use super::{Connection, Parts, node};
use crate::rig::assets::{self, Program};
use crate::rig::process::{Launch, Server};
use crate::rig::run::Run;
use crate::rig::tls::{self, Authority};
use crate::rig::{http, ports};

const READY_WITHIN: Duration = Duration::from_mins(2);

/// How often is looked whether all programs run, while something waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const SERVICE_CIDR: &str = "10.96.0.0/16";
const FIRST_SERVICE_ADDRESS: &str = "10.96.0.1";

/// The issuer of service account tokens, and the audience of those meant for the API server itself.
const ISSUER: &str = "https://kubernetes.default.svc";

/// The file of the public keys that verify service account tokens.
pub(super) const TOKEN_KEYS: &str = "accounts.pub";

/// Only what the suites rely on: each further controller costs memory and start-up time.
const CONTROLLERS: &str = "namespace,garbagecollector,serviceaccount,serviceaccount-token,root-ca-cert-publisher,\
                           clusterrole-aggregation,deployment,replicaset,statefulset,daemonset,job,cronjob,disruption";

/// The processes of a control plane.
pub(super) struct ControlPlane {
    setting: Setting,
    parts: Parts,
    api_server: Server,
    /// Held so that they live as long as the control plane.
    others: Vec<Server>,
}

/// What all programs of one control plane share.
struct Setting {
    run: Run,
    name: String,
    folder: PathBuf,
    url: String,
    authority: Authority,
}

/// The file that the API server of `folder` writes its audit log to.
pub(super) fn audit_log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

impl ControlPlane {
    /// Starts etcd and the API server, and waits until the latter is ready.
    pub(super) async fn start(run: &Run, name: &str, parts: Parts) -> Result<(Self, Connection)> {
        let programs = vec![Program::Etcd, Program::KubeApiserver, Program::Kubectl];
        let programs = assets::provide_all(run, programs).await?;
        let [etcd, api_server, kubectl] = programs.try_into().expect("one path for each of three programs");

        let port = ports::free()?;
        let setting = Setting {
            run: run.clone(),
            name: name.to_owned(),
            folder: run.subfolder(name)?,
            url: format!("https://127.0.0.1:{port}"),
            authority: Authority::new("keyward rig kubernetes")?,
        };
        setting.authority.save(&setting.folder)?;
        // The API server waits for etcd by itself.
        let (etcd, etcd_url) = setting.start_etcd(etcd)?;
        let api_server = setting.start_api_server(api_server, port, &etcd_url)?;
        let connection = Connection {
            url: setting.url.clone(),
            folder: setting.folder.clone(),
            kubectl,
        };
        let control_plane = Self {
            setting,
            parts,
            api_server,
            others: vec![etcd],
        };
        control_plane.wait_for_api_server().await?;
        Ok((control_plane, connection))
    }

    /// Starts the controller manager, the scheduler and kwok, if they were asked for. Says whether.
    pub(super) async fn start_controllers(&mut self) -> Result<bool> {
        if self.parts == Parts::ApiServer {
            return Ok(false);
        }
        let programs = vec![
            Program::KubeControllerManager,
            Program::KubeScheduler,
            Program::Kwok,
        ];
        let programs = assets::provide_all(&self.setting.run, programs).await?;
        let [manager, scheduler, kwok] = programs.try_into().expect("one path for each of three programs");
        self.others.extend([
            self.setting.start_controller_manager(manager)?,
            self.setting.start_scheduler(scheduler)?,
            self.setting.start_kwok(kwok)?,
        ]);
        Ok(true)
    }

    pub(super) fn api_server(&self) -> &Server {
        &self.api_server
    }

    /// Does `work`, and fails at once, with the end of its log, if one of the programs ends meanwhile.
    pub(super) async fn while_all_run<T>(&self, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        let end = async {
            loop {
                std::iter::once(&self.api_server)
                    .chain(&self.others)
                    .try_for_each(Server::expect_running)?;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            done = work => done,
            ended = end => ended,
        }
    }

    /// Waits for `/readyz`.
    pub(super) async fn wait_for_api_server(&self) -> Result<()> {
        let client = http::client(self.setting.authority.certificate())?;
        let ready = format!("{}/readyz", self.setting.url);
        let probe = async || {
            client
                .get(&ready)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        };
        self.while_all_run(self.api_server.ready(READY_WITHIN, probe).boxed())
            .await
    }
}

impl Setting {
    fn start_etcd(&self, program: PathBuf) -> Result<(Server, String)> {
        let client = format!("http://127.0.0.1:{}", ports::free()?);
        let peer = format!("http://127.0.0.1:{}", ports::free()?);
        let server = self
            .launch("etcd", program)
            .arg(format!("--data-dir={}", self.path("etcd")))
            .args([
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
            ])
            .args([
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ])
            .arg(format!("--initial-cluster=default={peer}"))
            // The state is thrown away: waiting for the disk would only cost time.
            .arg("--unsafe-no-fsync")
            .arg("--log-level=warn")
            .start(&self.run)?;
        Ok((server, client))
    }

    fn start_api_server(&self, program: PathBuf, port: u16, etcd: &str) -> Result<Server> {
        let hosts = [
            "127.0.0.1",
            "localhost",
            "kubernetes.default.svc",
            FIRST_SERVICE_ADDRESS,
        ];
        self.authority
            .server("kube-apiserver", &hosts)?
            .save(&self.folder, "apiserver")?;
        let accounts = KeyPair::generate()?;
        tls::write_private(
            &self.folder.join("accounts.key"),
            accounts.serialize_pem().as_bytes(),
        )?;
        self.write(TOKEN_KEYS, &accounts.public_key_pem())?;
        self.write("audit-policy.json", &audit_policy())?;
        self.launch("kube-apiserver", program)
            .arg(format!("--etcd-servers={etcd}"))
            .arg(format!("--secure-port={port}"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            // A loopback address is no valid endpoint of the `kubernetes` service.
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--service-cluster-ip-range={SERVICE_CIDR}"))
            .arg("--authorization-mode=RBAC")
            .arg("--allow-privileged=true")
            // The controller that would take the taint of a new node away again is not run.
            .arg("--disable-admission-plugins=TaintNodesByCondition")
            .arg(format!("--tls-cert-file={}", self.path("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", self.path("apiserver.key")))
            .arg(format!("--client-ca-file={}", self.path("ca.crt")))
            .arg(format!("--service-account-issuer={ISSUER}"))
            .arg(format!("--service-account-key-file={}", self.path(TOKEN_KEYS)))
            .arg(format!(
                "--service-account-signing-key-file={}",
                self.path("accounts.key")
            ))
            .arg(format!("--audit-policy-file={}", self.path("audit-policy.json")))
            .arg(format!("--audit-log-path={}", audit_log(&self.folder).display()))
            // In megabytes. A log that rotates would lose the place that a reader has marked.
            .arg("--audit-log-maxsize=100000")
            .start(&self.run)
    }

    fn start_controller_manager(&self, program: PathBuf) -> Result<Server> {
        let kubeconfig = self.kubeconfig("system:kube-controller-manager", None)?;
        self.launch("kube-controller-manager", program)
            .arg(format!("--kubeconfig={kubeconfig}"))
            .args(["--bind-address=127.0.0.1", "--leader-elect=false"])
            .arg(format!("--secure-port={}", ports::free()?))
            .arg(format!("--controllers={CONTROLLERS}"))
            // Its own user lacks the rights that the controllers' accounts have.
            .arg("--use-service-account-credentials=true")
            .arg(format!(
                "--service-account-private-key-file={}",
                self.path("accounts.key")
            ))
            .arg(format!("--root-ca-file={}", self.path("ca.crt")))
            .args(["--kube-api-qps=200", "--kube-api-burst=400"])
            .start(&self.run)
    }

    fn start_scheduler(&self, program: PathBuf) -> Result<Server> {
        let kubeconfig = self.kubeconfig("system:kube-scheduler", None)?;
        self.launch("kube-scheduler", program)
            .arg(format!("--kubeconfig={kubeconfig}"))
            .args(["--bind-address=127.0.0.1", "--leader-elect=false"])
            .arg(format!("--secure-port={}", ports::free()?))
            .arg("--authentication-skip-lookup=true")
            .start(&self.run)
    }

    fn start_kwok(&self, program: PathBuf) -> Result<Server> {
        // A kubelet's rights are bound to its node; the stand-in plays all nodes.
        let kubeconfig = self.kubeconfig(KWOK_USER, Some("system:masters"))?;
        self.write("kwok-stages.json", &node::stages())?;
        self.launch("kwok", program)
            .arg(format!("--kubeconfig={kubeconfig}"))
            .arg("--manage-all-nodes=true")
            .arg(format!("--server-address=127.0.0.1:{}", ports::free()?))
            .arg(format!("--config={}", self.path("kwok-stages.json")))
            .start(&self.run)
    }

    /// A launch whose log is told from that of another control plane of the run.
    fn launch(&self, program: &str, path: PathBuf) -> Launch {
        Launch::new(format!("{}-{program}", self.name), path)
    }

    fn kubeconfig(&self, user: &str, group: Option<&str>) -> Result<String> {
        let identity = self.authority.client(user, group)?;
        let access = Access::certificate(&self.url, self.authority.certificate(), user, &identity);
        let name = format!("{}.kubeconfig", user.replace(':', "-"));
        access.save(&self.folder.join(&name))?;
        Ok(self.path(&name))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

const KWOK_USER: &str = "rig:kwok";

/// One event for each answered request, but for those of the control plane's own programs: nobody counts
/// them, and they are many.
fn audit_policy() -> String {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {
                "level": "None",
                "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", KWOK_USER],
            },
            { "level": "None", "userGroups": ["system:serviceaccounts:kube-system"] },
            { "level": "Metadata" },
        ],
    });
    policy.to_string()
}
