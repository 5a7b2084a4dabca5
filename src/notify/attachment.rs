//! Attachments: files fetched from the URLs that campaigns name, from the public internet and from nowhere else.
//!
//! Whoever edits a campaign chooses the URL, and the node stands inside somebody's network. So a name is resolved
//! once, every address it has must be public, and only those are connected to; an address written out in a URL, in
//! whatever spelling, is judged before anything is sent; each redirect is a new URL and judged as such; and the peer
//! of the connection is judged once more before its answer is read. No proxy comes between.
//!
//! Must not know: e-mail, campaigns, the store. It says what it could not fetch; what the mail does without it is
//! decided there.

mod address;
mod label;
mod refusal;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use crate::late::Late;

pub use address::Class;
pub use refusal::Refusal;

/// A file to fetch (documents.md, `email_details.attachments`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What to call it; absent: as its URL does.
    pub name: Option<String>,
    /// Where it is.
    pub url: String,
}

/// A file that was fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Fit to be a file's name anywhere.
    pub name: String,
    /// A media type; `application/octet-stream` where the server names none.
    pub content_type: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A file that was not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omitted {
    /// What it would have been called.
    pub name: String,
    /// Why it is missing.
    pub why: Refusal,
}

/// What became of all links, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Those that are there.
    pub files: Vec<File>,
    /// Those that are not.
    pub omitted: Vec<Omitted>,
}

/// How much is fetched, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Files of one mail.
    pub count_max: usize,
    /// One file.
    pub file_bytes_max: usize,
    /// All files of one mail.
    pub total_bytes_max: usize,
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// One file, redirects included.
    pub each: Duration,
    /// All files of one mail.
    pub all: Duration,
    /// Redirects followed for one file.
    pub redirects_max: usize,
}

/// Fetches files. Cheap to share behind a reference.
pub struct Fetcher {
    client: Late<Client>,
    guard: Guard,
    limits: Limits,
}

/// The files together, as base64, stay below 10 MB: the most that many mail servers take without being told otherwise.
const TOTAL_BYTES_MAX: usize = 7 << 20;
/// Ports that are not the web's but somebody else's protocol: an HTTP request there is an attack.
const WELL_KNOWN_PORTS_END: u16 = 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            count_max: 10,
            file_bytes_max: 5 << 20,
            total_bytes_max: TOTAL_BYTES_MAX,
            connect: Duration::from_secs(5),
            each: Duration::from_secs(10),
            all: Duration::from_secs(30),
            redirects_max: 3,
        }
    }
}

// === impl Fetcher ===

impl Fetcher {
    /// A fetcher that reaches the public internet only. While TLS cannot be set up, it fetches nothing.
    #[must_use]
    pub fn public() -> Self {
        Self::build(Limits::default(), Arc::new(System), Vec::new())
    }

    /// For tests, whose servers are on loopback: as [`Fetcher::public`], with names resolved by `resolver`, and with
    /// `permitted` (address and port) taken for public. No configuration key leads here.
    #[doc(hidden)]
    #[must_use]
    pub fn permitting(
        limits: Limits,
        resolver: Arc<dyn Resolve>,
        permitted: Vec<SocketAddr>,
    ) -> Self {
        Self::build(limits, resolver, permitted)
    }

    fn build(limits: Limits, resolver: Arc<dyn Resolve>, permitted: Vec<SocketAddr>) -> Self {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let guard = Guard {
            permitted: permitted.into(),
        };
        let names = Arc::new(Names {
            resolver,
            guard: guard.clone(),
        });
        let connect_timeout = limits.connect;
        let client = move || {
            Client::builder()
                .user_agent(concat!("inlet/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::clone(&names))
                // A proxy would connect to whatever it resolves the name to.
                .no_proxy()
                .redirect(redirect::Policy::none())
                // Each connection is made for one request, to addresses that were judged for it.
                .pool_max_idle_per_host(0)
                // What arrives is what is counted: no body grows after it was read.
                .no_gzip()
                .no_brotli()
                .no_deflate()
                .no_zstd()
                .connect_timeout(connect_timeout)
                .build()
        };
        Self {
            client: Late::new("the client for attachments", client),
            guard,
            limits,
        }
    }

    /// How much it fetches, and how long that may take.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Fetches the files one after the other. Each is asked for once: a mail about a lead does not wait for a file.
    pub async fn fetch_all(&self, links: &[Link]) -> Fetched {
        let end = Instant::now() + self.limits.all;
        let mut fetched = Fetched::default();
        let mut room = self.limits.total_bytes_max;
        for (position, link) in links.iter().enumerate() {
            let url = Url::parse(link.url.trim()).ok();
            let name = label::file_name(link.name.as_deref(), url.as_ref());
            let outcome = if position < self.limits.count_max {
                self.fetch_until(end, url, room).await
            } else {
                Err(Refusal::TooMany {
                    count_max: self.limits.count_max,
                })
            };
            match outcome {
                Ok((content_type, bytes)) => {
                    room -= bytes.len();
                    fetched.files.push(File {
                        name,
                        content_type,
                        bytes,
                    });
                }
                Err(why) => fetched.omitted.push(Omitted { name, why }),
            }
        }
        fetched
    }

    async fn fetch_until(
        &self,
        end: Instant,
        url: Option<Url>,
        room: usize,
    ) -> Result<(String, Vec<u8>), Refusal> {
        let end = end.min(Instant::now() + self.limits.each);
        let url = url.ok_or(Refusal::Url)?;
        timeout_at(end, self.fetch(url, room))
            .await
            .unwrap_or(Err(Refusal::TooSlow))
    }

    async fn fetch(&self, mut url: Url, room: usize) -> Result<(String, Vec<u8>), Refusal> {
        for _ in 0..=self.limits.redirects_max {
            let response = self.ask(&url).await?;
            match redirected(&response, &url)? {
                Some(next) => url = next,
                None => return self.read(response, room).await,
            }
        }
        Err(Refusal::Redirects {
            redirects_max: self.limits.redirects_max,
        })
    }

    async fn ask(&self, url: &Url) -> Result<Response, Refusal> {
        self.guard.judge(url)?;
        let client = self.client.get().map_err(|_| Refusal::Unready)?;
        let request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        let response = request.send().await.map_err(Refusal::of)?;
        // In pairs: the addresses were judged before connecting, the peer is before anything of its answer counts.
        let peer = response
            .remote_addr()
            .ok_or_else(|| Refusal::broken("the connection has no peer"))?;
        self.guard.judge_peer(peer)?;
        Ok(response)
    }

    async fn read(
        &self,
        mut response: Response,
        room: usize,
    ) -> Result<(String, Vec<u8>), Refusal> {
        if response.status() != StatusCode::OK {
            return Err(Refusal::Status(response.status().as_u16()));
        }
        // Not asked for, so never unpacked: a bomb stays as small as it came.
        if header(&response, CONTENT_ENCODING)
            .is_some_and(|it| !it.eq_ignore_ascii_case("identity"))
        {
            return Err(Refusal::Compressed);
        }
        let content_type = label::content_type(header(&response, CONTENT_TYPE));
        let bytes_max = self.limits.file_bytes_max.min(room);
        let announced = response.content_length();
        if announced.is_some_and(|length| length > bytes_max as u64) {
            return Err(self.too_large(room));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Refusal::of)? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(self.too_large(room));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((content_type, bytes))
    }

    fn too_large(&self, room: usize) -> Refusal {
        if room < self.limits.file_bytes_max {
            Refusal::TotalTooLarge {
                bytes_max: self.limits.total_bytes_max,
            }
        } else {
            Refusal::TooLarge {
                bytes_max: self.limits.file_bytes_max,
            }
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("name", &self.name)
            .field("content_type", &self.content_type)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// What may be asked.
#[derive(Clone)]
struct Guard {
    permitted: Arc<[SocketAddr]>,
}

impl Guard {
    /// Judges what the URL itself says. Parsing has already made one spelling of `0x7f.1`, `2130706433` and
    /// `127.0.0.1`.
    fn judge(&self, url: &Url) -> Result<(), Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        // `https://files.example@evil.example/` reads as one host and is another; and passwords belong in no campaign.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        let port = url.port_or_known_default().ok_or(Refusal::Url)?;
        if port < WELL_KNOWN_PORTS_END && !matches!(port, 80 | 443) {
            return Err(Refusal::Port(port));
        }
        // The client does not ask a resolver about these.
        match url.host().ok_or(Refusal::Url)? {
            Host::Ipv4(address) => self.judge_peer(SocketAddr::new(address.into(), port)),
            Host::Ipv6(address) => self.judge_peer(SocketAddr::new(address.into(), port)),
            Host::Domain(_) => Ok(()),
        }
    }

    fn judge_peer(&self, peer: SocketAddr) -> Result<(), Refusal> {
        if self.permitted.contains(&peer) {
            return Ok(());
        }
        address::class(peer.ip()).map_or(Ok(()), |class| Err(Refusal::Address(class)))
    }

    /// As [`Guard::judge_peer`], where the port is not known yet; it is judged with the peer.
    fn judge_address(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.permitted.iter().any(|it| it.ip() == address) {
            return Ok(());
        }
        address::class(address).map_or(Ok(()), |class| Err(Refusal::Address(class)))
    }
}

/// Resolves names to public addresses. The client connects to exactly these: it does not ask again, so an answer
/// that changes (DNS rebinding) changes nothing.
struct Names {
    resolver: Arc<dyn Resolve>,
    guard: Guard,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let resolving = self.resolver.resolve(name);
        let guard = self.guard.clone();
        Box::pin(async move {
            let addresses: Vec<_> = resolving.await.map_err(|_| Refusal::Unresolved)?.collect();
            if addresses.is_empty() {
                return Err(Refusal::Unresolved.into());
            }
            // All of them: a name that has a private address beside a public one is up to something.
            for address in &addresses {
                guard.judge_address(address.ip())?;
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The machine's own resolver.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client puts the URL's port in place of 0.
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Where the answer sends us instead.
fn redirected(response: &Response, from: &Url) -> Result<Option<Url>, Refusal> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = header(response, LOCATION).ok_or(Refusal::Url)?;
    let next = from.join(location).map_err(|_| Refusal::Url)?;
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(Refusal::Downgrade);
    }
    Ok(Some(next))
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}
