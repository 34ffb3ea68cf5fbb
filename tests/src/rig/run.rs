//! One run of servers: its folder, its keeper, and what becomes of it at the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use super::cache;
use super::keeper::{self, Badge, Keeper};

/// A run that outlives its command. There is at most one of each on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// What `rig up` left. Suites use it.
    Rig,
    /// What `cargo demo --keep` left. Suites stay away from it: an operator works in all of its namespaces.
    Demo,
}

impl Lasting {
    fn folder(self) -> &'static str {
        match self {
            Self::Rig => "up",
            Self::Demo => "demo",
        }
    }

    fn stopped_by(self) -> &'static str {
        match self {
            Self::Rig => "cargo rig down",
            Self::Demo => "cargo demo --stop",
        }
    }
}

/// Tells a run that lives on by intent from one whose keeper was killed.
const DETACHED: &str = "detached";

/// A folder for the state, logs and processes of servers. When the last clone is dropped, or this process
/// ends in whatever way, the processes are killed and the folder is removed.
#[derive(Clone)]
pub struct Run {
    owned: Arc<Owned>,
}

struct Owned {
    folder: PathBuf,
    keeper: Mutex<Option<Keeper>>,
}

impl Run {
    /// Cleans up what killed runs left, then starts a new run.
    pub fn start() -> Result<Self> {
        Self::create(&format!(
            "{}-{}",
            std::process::id(),
            uuid::Uuid::new_v4().simple()
        ))
    }

    /// The run that [`Self::detach`] will let live on; see [`lasting`].
    pub fn start_lasting(which: Lasting) -> Result<Self> {
        Self::create(which.folder()).with_context(|| {
            format!(
                "servers may still be running: `{}` stops them",
                which.stopped_by()
            )
        })
    }

    /// The run's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.owned.folder
    }

    /// What makes a process one of this run.
    #[must_use]
    pub fn badge(&self) -> Badge {
        Badge::of(&self.owned.folder)
    }

    /// The folder of what the servers print.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.owned.folder.join("logs")
    }

    /// A folder of its own for one server, made if need be.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.owned.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    /// Lets the processes live on when this process ends; only a run of [`Self::start_lasting`] is found again.
    pub fn detach(&self) -> Result<()> {
        let mark = self.owned.folder.join(DETACHED);
        fs::write(&mark, "").with_context(|| format!("write {}", mark.display()))?;
        let keeper = self
            .owned
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        keeper.map_or(Ok(()), Keeper::release)
    }

    /// Whether [`Self::detach`] was called.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.owned
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn create(name: &str) -> Result<Self> {
        let runs = runs()?;
        // Whoever looks for leftovers must not find a folder that has no keeper yet.
        let _looking = lock(&runs)?;
        remove_leftovers(&runs)?;
        let folder = runs.join(name);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let keeper = Keeper::start(&folder)?;
        Ok(Self {
            owned: Arc::new(Owned {
                folder,
                keeper: Mutex::new(Some(keeper)),
            }),
        })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner) {
            keeper.end();
        }
    }
}

/// The folder of servers that were left running, if they run.
pub fn lasting(which: Lasting) -> Result<Option<PathBuf>> {
    let folder = runs()?.join(which.folder());
    Ok((folder.join(DETACHED).exists() && !keeper::processes(&folder).is_empty()).then_some(folder))
}

/// Stops servers that were left running. Says whether there were any.
pub fn end_lasting(which: Lasting) -> Result<bool> {
    let runs = runs()?;
    let _looking = lock(&runs)?;
    let folder = runs.join(which.folder());
    let existed = folder.join(DETACHED).exists();
    if existed {
        keeper::clean(&folder)?;
    }
    Ok(existed)
}

fn runs() -> Result<PathBuf> {
    let runs = cache::root()?.join("runs");
    fs::create_dir_all(&runs).with_context(|| format!("create {}", runs.display()))?;
    Ok(runs)
}

fn lock(runs: &Path) -> Result<File> {
    let path = runs.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Ends runs that nobody owns any more: no living keeper, and not left running by intent.
fn remove_leftovers(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs).with_context(|| format!("list {}", runs.display()))? {
        let folder = entry?.path();
        if folder.is_dir() && is_leftover(&folder) {
            keeper::clean(&folder)?;
        }
    }
    Ok(())
}

fn is_leftover(folder: &Path) -> bool {
    if folder.join(DETACHED).exists() {
        // After a restart of the machine the folder is all that is left.
        return keeper::processes(folder).is_empty();
    }
    File::open(keeper::lock_file(folder)).map_or(true, |file| file.try_lock().is_ok())
}
