//! The floor: what a client that decides nothing needs for the same requests.
//!
//! It is a process of its own, this program started again, so that its CPU time can be compared. It lists and watches
//! the kinds that the operator watches, logs in once, and for each object reads the value, applies one Secret and
//! patches one status: with as many workers and connections as the operator has for one store, and nothing kept,
//! compared, paced or told.

mod barbican;
mod client;
mod kubernetes;
mod vault;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use keyward::runtime::clock;
use serde::{Deserialize, Serialize};

use super::defaults::Defaults;
use super::ground::FLOOR_HOME;
use super::population::Population;
use super::stock::StoreTask;
use crate::rig::poll;
use crate::rig::process::Launch;

/// Names the file with the task, in the environment of a process that is to be the floor.
const TASK: &str = "KEYWARD_BENCH_FLOOR";

/// What the floor is to do.
#[derive(Serialize, Deserialize)]
struct Task {
    kubeconfig: PathBuf,
    namespace: String,
    /// How many pipelines of read, apply and patch run at once.
    workers: usize,
    store: StoreTask,
    answer: PathBuf,
}

/// What the floor says at its end.
#[derive(Serialize, Deserialize)]
struct Answer {
    finished: DateTime<Utc>,
    cpu_seconds: f64,
    connections: usize,
    status_writes_per_second: f64,
    recoveries_per_second: f64,
}

/// What the same work costs a client that decides nothing.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// From its start to its last write.
    pub time: Duration,
    /// CPU time until then, in seconds.
    pub cpu_seconds: f64,
    /// TCP connections that it had open at that time.
    pub connections: usize,
    /// How fast it writes statuses and nothing else.
    pub status_writes_per_second: f64,
    /// How fast it reads a value and then writes a status, for each object.
    pub recoveries_per_second: f64,
}

/// Becomes the floor where that was asked for, and then never returns. To be called early in `main`.
pub fn serve_if_asked() {
    if let Some(file) = std::env::var_os(TASK) {
        let done = serve(Path::new(&file));
        if let Err(error) = &done {
            // The log of the process is what its parent shows.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("floor: {error:#}\n"));
        }
        std::process::exit(i32::from(done.is_err()));
    }
}

/// Lets the floor do once what the operator would do for this population.
pub async fn measure(population: &Population<'_>, within: Duration) -> Result<Floor> {
    let ground = population.ground;
    let name = format!("floor-{}", uuid::Uuid::new_v4().simple());
    let folder = ground.run.subfolder(&name)?;
    let token = ground.kubernetes.token(FLOOR_HOME, "keyward", &[]).await?;
    let task = Task {
        kubeconfig: folder.join("kubeconfig"),
        namespace: population.namespace.clone(),
        workers: Defaults::of_the_operator()?.workers(),
        store: population.stock.lock().await.task(ground, &population.vault),
        answer: folder.join("answer.json"),
    };
    ground.kubernetes.bearer(&token).save(&task.kubeconfig)?;
    let file = folder.join("task.json");
    fs::write(&file, serde_json::to_vec(&task)?).with_context(|| format!("write {}", file.display()))?;
    let program = std::env::current_exe().context("this program cannot be found")?;
    let launch = Launch::new(name, program).env(TASK, &file);
    let started = clock::now();
    let server = launch.start(&ground.run)?;
    let status = poll::some("the floor to be through", within, async || {
        server.ended().transpose()
    })
    .await??;
    if !status.success() {
        bail!("the floor failed:\n{}", server.log_tail());
    }
    let text = fs::read(&task.answer).context("the floor left no answer")?;
    let answer: Answer = serde_json::from_slice(&text)?;
    Ok(Floor {
        time: (answer.finished - started)
            .to_std()
            .context("the floor ended before it began")?,
        cpu_seconds: answer.cpu_seconds,
        connections: answer.connections,
        status_writes_per_second: answer.status_writes_per_second,
        recoveries_per_second: answer.recoveries_per_second,
    })
}

fn serve(file: &Path) -> Result<()> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let task: Task = serde_json::from_slice(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = runtime.block_on(client::work(&task))?;
    fs::write(&task.answer, serde_json::to_vec(&answer)?)
        .with_context(|| format!("write {}", task.answer.display()))
}
