//! A stand-in for a store that is far away: it passes every byte on, and those of answers later.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A listener on loopback whose connections lead to one server.
pub struct DelayLine {
    url: String,
    task: JoinHandle<()>,
}

impl DelayLine {
    /// A way to the server at `url` on which answers take `delay` longer, however many are under way.
    pub async fn before(url: &str, delay: Duration) -> Result<Self> {
        let (scheme, server) = url.split_once("://").context("an address has a scheme")?;
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&server).await {
                    join(client, server, delay);
                }
            }
        });
        Ok(Self { url, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes on both ways until either side is through.
fn join(client: TcpStream, server: TcpStream, delay: Duration) {
    // Small pieces would wait for each other otherwise.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut questions, client) = client.into_split();
    let (answers, mut server) = server.into_split();
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut questions, &mut server).await;
    });
    let (sender, pieces) = mpsc::unbounded_channel();
    tokio::spawn(collect(answers, sender, delay));
    tokio::spawn(deliver(pieces, client));
}

/// Notes for each piece of an answer when it is due.
async fn collect(
    mut answers: OwnedReadHalf,
    sender: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    delay: Duration,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = answers.read(&mut buffer).await {
        let piece = (Instant::now() + delay, buffer[..length].to_vec());
        if sender.send(piece).is_err() {
            return;
        }
    }
}

async fn deliver(mut pieces: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>, mut client: OwnedWriteHalf) {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        if client.write_all(&piece).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_later_and_in_order() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", echo.local_addr().unwrap());
        tokio::spawn(async move {
            let (stream, _) = echo.accept().await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
        let delay = Duration::from_millis(40);
        let line = DelayLine::before(&address, delay).await.unwrap();
        let mut client = TcpStream::connect(line.url().strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let began = Instant::now();
        client.write_all(b"one").await.unwrap();
        client.write_all(b"two").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"onetwo");
        assert!(began.elapsed() >= delay);
    }
}
