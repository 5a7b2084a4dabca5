//! Bodies as they arrive, within a bound on each and a bound on all of them together (R3).
//!
//! Must not know: what a body means. Memory is counted as it is taken, not as it is announced: a sender that names a
//! great length and sends nothing takes nothing away from the others.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::limits::Refusal;

/// How long a body may take to arrive. Platforms send at once; whoever takes longer only holds a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of all bodies that are being read or wait to be stored. A quarter of a thousand of the largest by default;
/// typical ones are a thousandth of that.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The room for bodies.
pub(super) struct Bodies {
    room: Semaphore,
}

/// A body that was read whole, and its place in the room until it is stored.
pub(super) struct Held<'r> {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    _room: SemaphorePermit<'r>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::with_room(BODIES_BYTES_MAX)
    }
}

impl Bodies {
    fn with_room(bytes: usize) -> Self {
        Self {
            room: Semaphore::new(bytes),
        }
    }

    /// Reads a body of at most `bytes_max`.
    ///
    /// # Errors
    /// Too large, broken off, too slow, or there is no room for it now.
    pub(super) async fn read(&self, body: Body, bytes_max: usize) -> Result<Held<'_>, Refusal> {
        let read = tokio::time::timeout(BODY_TIMEOUT, self.collect(body, bytes_max)).await;
        read.unwrap_or(Err(Refusal::BodyTimeout))
    }

    async fn collect(&self, mut body: Body, bytes_max: usize) -> Result<Held<'_>, Refusal> {
        let mut held = Held {
            bytes: Vec::new(),
            _room: self.take(0)?,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::BodyBroken)?;
            if let Ok(data) = frame.into_data() {
                self.append(&mut held, &data, bytes_max)?;
            }
        }
        Ok(held)
    }

    /// What is taken is the space reserved, which doubles as a body grows.
    fn append<'r>(
        &'r self,
        held: &mut Held<'r>,
        data: &Bytes,
        bytes_max: usize,
    ) -> Result<(), Refusal> {
        let Held { bytes, _room } = held;
        let len = bytes.len() + data.len();
        if len > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if len > bytes.capacity() {
            let capacity = len.max((bytes.capacity() * 2).min(bytes_max));
            _room.merge(self.take(capacity - bytes.capacity())?);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(data);
        Ok(())
    }

    fn take(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| Refusal::BodyTooLarge)?;
        self.room
            .try_acquire_many(bytes)
            .map_err(|_| Refusal::BodiesFull)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::task::Poll;

    use futures_util::{StreamExt, stream};

    use super::*;

    /// A body of these parts; one that is not `finished` never ends.
    fn body(parts: &'static [&'static str], finished: bool) -> Body {
        let parts = stream::iter(parts.iter().map(|part| Ok::<_, Infallible>(*part)));
        if finished {
            return Body::from_stream(parts);
        }
        Body::from_stream(parts.chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_and_one_byte_more_is_too_large() {
        let bodies = Bodies::with_room(1_000);
        let read = bodies.read(body(&["abc", "de", "f"], true), 6).await;
        assert_eq!(read.ok().unwrap().bytes, b"abcdef");
        let refused = bodies.read(body(&["abc", "de", "f"], true), 5).await;
        assert_eq!(refused.err(), Some(Refusal::BodyTooLarge));
        assert_eq!(bodies.room.available_permits(), 1_000);
    }

    #[tokio::test]
    async fn bodies_that_are_still_arriving_take_room_from_others_until_they_are_gone() {
        let bodies = Bodies::with_room(10);
        let mut slow = Box::pin(bodies.read(body(&["1234", "567"], false), 100));
        let arrives = poll_fn(|context| Poll::Ready(slow.as_mut().poll(context)));
        assert!(arrives.await.is_pending());
        let refused = bodies.read(body(&["123"], true), 100).await;
        assert_eq!(refused.err(), Some(Refusal::BodiesFull));
        drop(slow);
        assert!(bodies.read(body(&["123"], true), 100).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_keeps_its_room_until_it_is_stored() {
        let bodies = Bodies::with_room(10);
        let stored_later = bodies.read(body(&["12345678"], true), 100).await;
        let refused = bodies.read(body(&["123"], true), 100).await;
        assert_eq!(refused.err(), Some(Refusal::BodiesFull));
        drop(stored_later);
        assert_eq!(bodies.room.available_permits(), 10);
    }
}
