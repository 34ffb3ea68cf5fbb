//! A door before a server that passes bytes on, and can keep answers back until they are old.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use keyward_tests::rig::poll;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::scene::{SOON, Scene};

/// A listener on loopback whose connections lead to one server.
pub struct Gate {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    server: String,
    connections: AtomicUsize,
    /// Answers on connections with a lower number are kept back.
    closed_below: watch::Sender<usize>,
    kept_back: AtomicUsize,
}

impl Gate {
    /// A door to `server`, an address with a port.
    pub async fn before(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            server: server.to_owned(),
            connections: AtomicUsize::new(0),
            closed_below: watch::Sender::new(0),
            kept_back: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&accepting)));
            }
        });
        Ok(Self { address, state, task })
    }

    /// A door to the scene's Vault, which store `vault` leads through from now on.
    pub async fn before_vault(scene: &Scene<'_>) -> Result<Self> {
        let server = scene.vault.url().strip_prefix("https://");
        let gate = Self::before(server.context("the store speaks TLS")?).await?;
        let mut spec = scene.vault_spec();
        spec["vault"]["address"] = format!("https://{}", gate.address).into();
        scene.store("vault", &spec).await?;
        Ok(gate)
    }

    /// Keeps all answers back from now on.
    pub fn close(&self) {
        self.state.kept_back.store(0, Ordering::Relaxed);
        self.state.closed_below.send_replace(usize::MAX);
    }

    /// Waits until the server has given an answer that is kept back.
    pub async fn until_something_is_kept_back(&self) -> Result<()> {
        poll::until("an answer behind the gate", SOON, async || {
            self.state.kept_back.load(Ordering::Relaxed) > 0
        })
        .await
    }

    /// Lets connections pass that are made from now on; the others stay closed.
    pub fn open_to_new(&self) {
        let next = self.state.connections.load(Ordering::Relaxed);
        self.state.closed_below.send_replace(next);
    }

    /// Lets everything pass, first what was kept back.
    pub fn open(&self) {
        self.state.closed_below.send_replace(0);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, state: Arc<State>) -> Result<()> {
    let number = state.connections.fetch_add(1, Ordering::Relaxed);
    let server = TcpStream::connect(&state.server)
        .await
        .context("the server is away")?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        questions(from_client, to_server),
        answers(number, from_server, to_client, &state)
    )?;
    Ok(())
}

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await?;
    Ok(())
}

async fn answers(
    number: usize,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
) -> Result<()> {
    let mut closed_below = state.closed_below.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(to.shutdown().await?);
        }
        if *closed_below.borrow_and_update() > number {
            state.kept_back.fetch_add(length, Ordering::Relaxed);
            closed_below.wait_for(|below| *below <= number).await?;
        }
        to.write_all(&buffer[..length]).await?;
    }
}
