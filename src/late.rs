//! A client over TLS, built when it is first needed, and again until that works: it cannot be built on a machine that
//! has no root certificates, and that is no reason to take no webhooks, or to give up what could be sent once they are
//! there.
//!
//! Must not know: whom the client is to talk to.

use std::sync::OnceLock;

use crate::detail::with_causes;

/// A client, once it could be built.
pub struct Late<T> {
    build: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    built: OnceLock<T>,
}

impl<T> Late<T> {
    /// The client that `build` makes, called `what` where it cannot: "the Twilio client".
    pub fn new<E: std::error::Error>(
        what: &'static str,
        build: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Self {
        let told = move |error: E| {
            let why = with_causes(&error);
            format!("{what} cannot be set up: {why}; see that this machine has root certificates")
        };
        Self {
            build: Box::new(move || build().map_err(told)),
            built: OnceLock::new(),
        }
    }

    /// It, built now if it was not before.
    ///
    /// # Errors
    /// Why it cannot be built, with a remedy; the next call tries again.
    pub fn get(&self) -> Result<&T, String> {
        match self.built.get() {
            Some(built) => Ok(built),
            None => {
                let built = (self.build)()?;
                Ok(self.built.get_or_init(|| built))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Late;

    #[test]
    fn it_is_built_as_often_as_that_fails_and_once_more() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let late = Late::new("the client", move || {
            match counted.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(io::Error::other("no roots")),
                call => Ok(call),
            }
        });
        let why =
            "the client cannot be set up: no roots; see that this machine has root certificates";
        for _ in 0..2 {
            assert_eq!(late.get(), Err(why.to_owned()));
        }
        for _ in 0..2 {
            assert_eq!(late.get(), Ok(&2));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }
}
