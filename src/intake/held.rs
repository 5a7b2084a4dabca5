//! A connection as the server holds it: counted for as long as it is open, and given up when its peer takes nothing.
//!
//! Must not know: what is spoken on it. A WebSocket outlives the HTTP exchange it began as, so that what counts it has
//! to live in the connection itself. And a peer that stops reading would keep whoever writes to it waiting for ever:
//! TCP alone never gives such a connection up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// Ends a connection, whatever is spoken on it: its reader finds it broken.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<CutState>);

#[derive(Debug, Default)]
struct CutState {
    is_cut: AtomicBool,
    reader: AtomicWaker,
}

impl Cut {
    /// Ends it now.
    pub fn now(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    fn is_cut(&self, context: &Context<'_>) -> bool {
        // Registered before looking: a cut in between wakes.
        self.0.reader.register(context.waker());
        self.0.is_cut.load(Ordering::Acquire)
    }
}

/// A stream with its place among the connections.
pub(super) struct Held<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits for the peer; made with the first one that does.
    waiting: Option<Pin<Box<Sleep>>>,
    gave_up: bool,
    /// Whoever waits for bytes of a peer that is given up meanwhile.
    reader: Option<Waker>,
    cut: Cut,
    _place: OwnedSemaphorePermit,
}

impl<S> Held<S> {
    /// Gives up with [`io::ErrorKind::TimedOut`] once a write has waited for `patience`.
    pub(super) fn new(
        stream: S,
        patience: Duration,
        cut: Cut,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
            gave_up: false,
            reader: None,
            cut,
            _place: place,
        }
    }

    /// What becomes of an attempt to write.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.waiting = None;
            return attempt;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        self.gave_up = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.gave_up {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if this.cut.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let attempt = Pin::new(&mut this.stream).poll_read(context, buffer);
        if attempt.is_pending() {
            match &mut this.reader {
                Some(reader) => reader.clone_from(context.waker()),
                None => this.reader = Some(context.waker().clone()),
            }
        }
        attempt
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(context, attempt)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.judge(context, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(context, attempt)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(context, attempt)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
    use tokio::sync::Semaphore;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn held(places: &Arc<Semaphore>) -> (Held<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(64);
        let place = Arc::clone(places).try_acquire_owned().unwrap();
        (Held::new(ours, PATIENCE, Cut::default(), place), theirs)
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up_and_so_is_waiting_for_it() {
        let places = Arc::new(Semaphore::new(1));
        let (held, theirs) = held(&places);
        let (mut reader, mut writer) = split(held);
        let reading = tokio::spawn(async move { reader.read_u8().await });
        let error = writer.write_all(&[0; 1_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(places.available_permits(), 0);
        drop((writer, theirs));
        assert_eq!(places.available_permits(), 1, "its place is free again");
    }

    #[tokio::test]
    async fn a_peer_that_takes_a_little_now_and_then_is_kept() {
        let places = Arc::new(Semaphore::new(1));
        let (mut held, mut theirs) = held(&places);
        let taking = tokio::spawn(async move {
            let mut taken = 0;
            while taken < 640 {
                tokio::time::sleep(PATIENCE / 5).await;
                taken += theirs.read(&mut [0; 64]).await.unwrap();
            }
        });
        held.write_all(&[0; 640]).await.unwrap();
        taking.await.unwrap();
    }
}
