//! Bodies in buffers that are wiped: outgoing ones when the HTTP library drops them, incoming ones also when they
//! grow.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use zeroize::Zeroizing;

use super::failure;
use crate::stores::Outcome;

/// Room for an answer of unknown length; most are smaller.
const FIRST_ROOM: usize = 4096;

/// Hands a body over without copying it.
pub(super) fn outgoing(body: SecretBytes) -> reqwest::Body {
    Bytes::from_owner(Owner(body)).into()
}

/// Reads a body piece by piece and stops at `cap` bytes.
pub(super) async fn incoming(mut answer: reqwest::Response, cap: usize, peer: &str) -> Outcome<SecretBytes> {
    let announced = answer
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > cap) {
        return Err(too_large(cap, peer));
    }
    let mut buffer = Growing::with_room(announced.unwrap_or(FIRST_ROOM).min(cap));
    while let Some(piece) = answer
        .chunk()
        .await
        .map_err(|error| failure::classify(&error, peer))?
    {
        if buffer.len() + piece.len() > cap {
            return Err(too_large(cap, peer));
        }
        buffer.append(&piece);
    }
    Ok(buffer.finish())
}

struct Owner(SecretBytes);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// A vector that never leaves an unwiped copy behind when it moves to a larger place.
struct Growing(Zeroizing<Vec<u8>>);

impl Growing {
    fn with_room(room: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(room)))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn append(&mut self, piece: &[u8]) {
        let needed = self.0.len() + piece.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity() * 2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(piece);
    }

    fn finish(mut self) -> SecretBytes {
        SecretBytes::new(std::mem::take(&mut *self.0))
    }
}

fn too_large(cap: usize, peer: &str) -> Fault {
    Fault::new(
        Class::Permanent,
        Reason::RemoteTooLarge,
        format!("the answer of `{peer}` is larger than {cap} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_buffer_keeps_every_byte() {
        let mut buffer = Growing::with_room(1);
        let expected: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for piece in expected.chunks(7) {
            buffer.append(piece);
        }
        assert!(buffer.finish().same_as(&expected));
    }
}
