//! TLS on the intake listener, with a certificate that may change while the node runs.
//!
//! Must not know: HTTP. Renewal tools replace files; the files are looked at now and then, and a pair that does not fit
//! together yet (one of the two is replaced before the other) leaves the old one in place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate chain and its key, as they are on disk now.
pub struct Tls {
    files: Files,
    current: ArcSwap<Loaded>,
}

/// What the files held, and when they had been written.
struct Loaded {
    config: Arc<ServerConfig>,
    written: Written,
}

type Written = [Option<SystemTime>; 2];

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read, are no PEM, or do not belong together.
    pub fn load(cert: PathBuf, key: PathBuf) -> anyhow::Result<Self> {
        let files = Files { cert, key };
        let current = ArcSwap::from_pointee(files.read()?);
        Ok(Self { files, current })
    }

    /// Makes a connection a TLS connection; `None` where the peer does not manage.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .ok()?
            .ok()
    }

    /// Takes over replaced files until `shutdown` turns true.
    pub async fn keep_fresh(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_INTERVAL) => self.look(),
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Takes over the files if they were written since they were read; those that cannot be used are looked at again.
    fn look(&self) {
        if self.files.written() == self.current.load().written {
            return;
        }
        match self.files.read() {
            Ok(loaded) => {
                tracing::info!("the certificate was replaced");
                self.current.store(Arc::new(loaded));
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "the new certificate cannot be used; the old one stays"
                );
            }
        }
    }
}

impl Files {
    fn read(&self) -> anyhow::Result<Loaded> {
        // Before the reading: what is written meanwhile is read again.
        let written = self.written();
        let named = |path: &PathBuf| format!("{} cannot be read as PEM", path.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.cert)
            .with_context(|| named(&self.cert))?
            .collect();
        let chain = chain.with_context(|| named(&self.cert))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).with_context(|| named(&self.key))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("the certificate and the key do not belong together")?;
        let config = Arc::new(config);
        Ok(Loaded { config, written })
    }

    fn written(&self) -> Written {
        [&self.cert, &self.key].map(|path| path.metadata().and_then(|file| file.modified()).ok())
    }
}
