//! A certificate for loopback, made anew for each server.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// A self-signed certificate for `localhost` and `127.0.0.1`, with its key.
pub(crate) struct Certificate {
    signed: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names).expect("valid names");
        Self { signed }
    }

    /// What a client has to trust, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.signed.cert.pem()
    }

    /// The private key, in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.signed.signing_key.serialize_pem()
    }

    /// The server's side of a TLS connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.signed.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows all versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![self.signed.cert.der().clone()],
                PrivateKeyDer::Pkcs8(key),
            )
            .expect("a certificate and its key");
        TlsAcceptor::from(Arc::new(config))
    }
}
