//! The Facebook Graph client: reads one lead, or exchanges a token, and says what kind of failure stood in the way.
//!
//! Must not know: the store, the pipeline, the HTTP server. It asks once and classifies; who waits, parks or gives up
//! is decided by the caller (R28). Neither access tokens nor the app secret ever leave it in an error, a debug print
//! or a log line.

mod exchange;
mod failure;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use reqwest::{Client, StatusCode, Url, redirect};
use serde_json::Value;
use sha2::Sha256;

use crate::detail;
use crate::late::Late;
use crate::model::{FacebookKey, LeadId};

pub use exchange::Exchanged;
pub use failure::{Extent, Failure, Throttled};
pub use usage::Waits;

/// What a lead is asked for: Graph's default answer is little more than id, time and form fields. The ad's fields are
/// simply absent for organic leads and for tokens without ads permissions.
const FIELDS: &str = "id,created_time,ad_id,ad_name,adset_id,adset_name,campaign_id,campaign_name,form_id,is_organic,\
    platform,field_data,custom_disclaimer_responses,home_listing,partner_name,retailer_item_id,vehicle";

/// What no version of the API has ever refused: enough to make the lead.
const ESSENTIAL_FIELDS: &str = "id,created_time,form_id,field_data";

/// Real answers are a few KiB; a broken proxy may send without end.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Real ids have up to 20 digits.
const LEAD_ID_BYTES_MAX: usize = 128;

/// A client of one Graph API, its connections pooled. Cheap to share behind a reference.
pub struct Graph {
    client: Late<Client>,
    base: Url,
    app_id: Option<String>,
    app_secret: Option<String>,
}

/// What came of asking for a lead.
#[derive(Debug)]
pub struct Reply {
    /// Graph's answer, an object with `id` and `field_data` (platforms.md 1.4); or why there is none, which says what
    /// to do about it (R28).
    pub lead: Result<Value, Failure>,
    /// How long Graph asks to be left alone, whatever it answered.
    pub waits: Waits,
}

/// How to reach Graph (interface.md, `[facebook]`).
pub struct Options {
    /// `facebook.graph_url`; a path in it is kept as a prefix.
    pub graph_url: String,
    /// `facebook.api_version`, such as `v18.0`.
    pub api_version: String,
    /// `facebook.app_id`; with it and the secret tokens can be exchanged.
    pub app_id: Option<String>,
    /// `facebook.app_secret`; with it each request carries its `appsecret_proof`.
    pub app_secret: Option<String>,
    /// Until the connection stands, TLS included.
    pub connect_timeout: Duration,
    /// Until the answer's last byte, connecting included.
    pub timeout: Duration,
}

/// The options make no client.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `graph_url` is no address that can be asked.
    #[error("facebook.graph_url is no http or https address")]
    Url,
    /// `api_version` is no single path segment.
    #[error("facebook.api_version must be letters, digits and dots, such as v18.0")]
    Version,
}

impl Graph {
    /// A client; nothing is sent yet. While TLS cannot be set up, most often for want of root certificates, Graph is
    /// unavailable, and says why.
    ///
    /// Installs *ring* as the process's TLS provider where none is installed. Proxies are taken from the usual
    /// environment variables (`HTTPS_PROXY`, `NO_PROXY`).
    ///
    /// # Errors
    /// [`OptionsError`] names the option that is wrong.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        // An error means that one is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (connect_timeout, timeout) = (options.connect_timeout, options.timeout);
        let client = move || {
            Client::builder()
                .user_agent(concat!("inlet/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(connect_timeout)
                .timeout(timeout)
                // Graph never redirects; whoever does (a captive portal) must not be handed a token.
                .redirect(redirect::Policy::none())
                .build()
        };
        Ok(Self {
            client: Late::new("the Facebook client", client),
            base: base_url(&options)?,
            app_id: options.app_id.filter(|id| !id.is_empty()),
            app_secret: options.app_secret.filter(|secret| !secret.is_empty()),
        })
    }

    /// Reads a lead with the token of `key`.
    ///
    /// One request; a second one, for the essential fields only, where Graph refuses a field it does not know.
    pub async fn lead(&self, leadgen_id: &LeadId, key: &FacebookKey) -> Reply {
        let mut reply = self.lead_fields(leadgen_id, key, FIELDS).await;
        // A field that came or went with an API version must not cost leads.
        if matches!(&reply.lead, Err(failure) if failure.is_unknown_field()) {
            reply = self.lead_fields(leadgen_id, key, ESSENTIAL_FIELDS).await;
        }
        let told = |failure: Failure| failure.told(|it| self.fit_to_tell(it, &key.access_token));
        reply.lead = reply.lead.map_err(told);
        reply
    }

    async fn lead_fields(&self, leadgen_id: &LeadId, key: &FacebookKey, fields: &str) -> Reply {
        let asked = match self.lead_url(leadgen_id, key, fields) {
            Ok(url) => self.ask(url).await,
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(answer) => Reply {
                waits: answer.waits,
                lead: answer.judge(leadgen_id),
            },
            Err(failure) => Reply {
                waits: Waits::default(),
                lead: Err(failure),
            },
        }
    }

    fn lead_url(
        &self,
        leadgen_id: &LeadId,
        key: &FacebookKey,
        fields: &str,
    ) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        push_segment(&mut url, graph_id(leadgen_id)?);
        let mut query = url.query_pairs_mut();
        query.append_pair("access_token", &key.access_token);
        query.append_pair("fields", fields);
        if let Some(secret) = &self.app_secret {
            query.append_pair("appsecret_proof", &proof(secret, &key.access_token));
        }
        drop(query);
        Ok(url)
    }

    async fn ask(&self, url: Url) -> Result<Answer, Failure> {
        let client = self.client.get().map_err(Failure::unavailable)?;
        let mut response = client.get(url).send().await.map_err(not_answered)?;
        let mut answer = Answer {
            status: response.status(),
            waits: usage::waits(response.headers()),
            body: Vec::new(),
        };
        while let Some(chunk) = response.chunk().await.map_err(not_answered)? {
            if answer.body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::unavailable("the answer is longer than 1 MiB"));
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    /// Graph repeats malformed tokens in its messages, and other machines repeat whole URLs: what is secret is masked
    /// before anything is cut, so that no half of it remains.
    fn fit_to_tell(&self, detail: &str, access_token: &str) -> String {
        let mut secrets = vec![access_token.to_owned()];
        if let Some(secret) = &self.app_secret {
            secrets.push(proof(secret, access_token));
            secrets.push(secret.clone());
        }
        detail::fit_to_tell(detail, secrets.iter().map(String::as_str))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            graph_url: "https://graph.facebook.com".to_owned(),
            api_version: "v18.0".to_owned(),
            app_id: None,
            app_secret: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The base URL may carry a proxy's password.
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("api_version", &self.api_version)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An HTTP answer, whole.
struct Answer {
    status: StatusCode,
    waits: Waits,
    body: Vec<u8>,
}

impl Answer {
    fn judge(self, asked: &LeadId) -> Result<Value, Failure> {
        failure::judge(self.status, self.waits, &self.body, asked)
    }
}

fn base_url(options: &Options) -> Result<Url, OptionsError> {
    let version = options.api_version.trim();
    let is_segment = version
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '.');
    if !is_segment || !version.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(OptionsError::Version);
    }
    let mut url = Url::parse(options.graph_url.trim()).map_err(|_| OptionsError::Url)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(OptionsError::Url);
    }
    url.set_query(None);
    url.set_fragment(None);
    push_segment(&mut url, version);
    Ok(url)
}

/// The id, where it can be a Graph id at all. Ids come from unsigned webhooks: one that makes a proxy or Facebook's
/// edge stumble would look like an outage and hold up everybody's leads.
fn graph_id(leadgen_id: &LeadId) -> Result<&str, Failure> {
    let id = leadgen_id.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.');
    let dots_only = id.chars().all(|c| c == '.');
    if id.len() > LEAD_ID_BYTES_MAX || !id.chars().all(plain) || dots_only {
        return Err(Failure::Refused {
            detail: "the leadgen id can be no Graph id; not asked".to_owned(),
        });
    }
    Ok(id)
}

/// Appends one path segment, percent-encoded: whatever it holds, it stays one segment.
fn push_segment(url: &mut Url, segment: &str) {
    url.path_segments_mut()
        .expect("http and https URLs have path segments")
        .pop_if_empty()
        .push(segment);
}

/// `appsecret_proof`: lower hex HMAC-SHA256 of the token under the app secret (platforms.md 1.6).
fn proof(app_secret: &str, access_token: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(app_secret.as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(access_token.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn not_answered(error: reqwest::Error) -> Failure {
    // The URL carries the token.
    let error = error.without_url();
    let detail = detail::with_causes(&error);
    if error.is_builder() {
        // The id is known to be plain, so only a token that is none can spoil the request.
        return Failure::TokenBroken {
            detail,
            extent: Extent::Everywhere,
        };
    }
    Failure::unavailable(detail)
}
