//! HTTPS on the intake: with a certificate made here, that is replaced while the node runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::CertifiedKey;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::http::{Ask, Connection, Reply, Unanswered};
use crate::support::node::{Node, route};
use crate::support::outcomes;
use crate::support::reference::Reference;
use crate::support::wait;

/// The files are looked at every ten seconds.
const RELOADED: Duration = Duration::from_secs(30);
/// Well below what a handshake may take.
const AT_ONCE: Duration = Duration::from_secs(5);
const NAME: &str = "localhost";

/// A self-signed certificate and its key.
struct Pair {
    certificate: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
}

impl Pair {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        Self {
            certificate: cert.der().clone(),
            cert_pem: cert.pem(),
            key_pem: signing_key.serialize_pem(),
        }
    }

    /// Posts to `node` over TLS, trusting nobody but this certificate.
    async fn post(&self, node: &Node, ask: Ask) -> Result<Reply, Unanswered> {
        let mut trusted = RootCertStore::empty();
        trusted.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let stream = TcpStream::connect(node.intake()).await?;
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        Connection::over(stream, node.intake())
            .await?
            .ask(ask)
            .await
    }
}

/// The files that a node reads.
struct Files(TempDir);

impl Files {
    fn of(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write_cert(pair);
        files.write_key(pair);
        files
    }

    fn write_cert(&self, pair: &Pair) {
        std::fs::write(self.cert(), &pair.cert_pem).unwrap();
    }

    fn write_key(&self, pair: &Pair) {
        std::fs::write(self.key(), &pair.key_pem).unwrap();
    }

    fn cert(&self) -> PathBuf {
        self.0.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.path().join("key.pem")
    }

    async fn node(&self, reference: &Reference) -> Node {
        Node::build()
            .config(&format!("tls.cert = {:?}", self.cert()))
            .config(&format!("tls.key = {:?}", self.key()))
            .reference(reference.to_import())
            .start()
            .await
    }
}

fn lead(reference: &Reference, id: &str) -> Ask {
    let campaign = reference.campaign("instapage");
    let route = route("instapage", reference.account, campaign);
    Ask::post_json(
        route,
        format!(r#"{{"id": "{id}", "Name": "Ada Lindqvist"}}"#),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn https_webhooks_are_taken_in_and_plain_http_on_that_port_is_hung_up_on() {
    let (pair, reference) = (Pair::new(), Reference::sample());
    let files = Files::of(&pair);
    let mut node = files.node(&reference).await;
    let reply = pair.post(&node, lead(&reference, "s-1")).await.unwrap();
    assert!(reply.is_acknowledged(), "{reply:?}");
    let stranger = Pair::new().post(&node, lead(&reference, "s-2")).await;
    assert!(
        stranger.is_err(),
        "whoever trusts another certificate does not connect"
    );

    let mut plain = TcpStream::connect(node.intake()).await.unwrap();
    let request =
        b"POST /v1/inbound/webhooks/facebook HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    plain.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let answered = tokio::time::timeout(AT_ONCE, plain.read_to_end(&mut answer)).await;
    // Whether the end comes as an end or as a reset is the system's choice.
    assert!(answered.is_ok(), "the connection hangs");
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");

    node.settled().await;
    assert_eq!(outcomes::ends(&node).await, [["lead"]]);
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_is_taken_over_once_it_fits_its_key_and_the_old_one_serves_until_then()
 {
    let (old, new, reference) = (Pair::new(), Pair::new(), Reference::sample());
    let files = Files::of(&old);
    let mut node = files.node(&reference).await;
    files.write_cert(&new);
    wait::until(
        "the half-replaced pair to be noticed",
        RELOADED,
        async || {
            let log = node.log_tail();
            if log.contains("the old one stays") {
                Ok(())
            } else {
                Err(log)
            }
        },
    )
    .await;
    let reply = old.post(&node, lead(&reference, "s-1")).await.unwrap();
    assert!(reply.is_acknowledged(), "{reply:?}");

    files.write_key(&new);
    let reply = wait::until("the new certificate", RELOADED, async || {
        let reply = new.post(&node, lead(&reference, "s-2")).await;
        reply.map_err(|error| error.to_string())
    })
    .await;
    assert!(reply.is_acknowledged(), "{reply:?}");
    let with_the_old = old.post(&node, lead(&reference, "s-3")).await;
    assert!(
        with_the_old.is_err(),
        "the old certificate is no longer served"
    );
    node.settled().await;
    assert_eq!(outcomes::ends(&node).await, [["lead"], ["lead"]]);
    node.terminate().await;
}
