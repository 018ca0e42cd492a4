//! The collector: spans over HTTP, as protocol buffers (OTLP/HTTP).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::options::Settings;
use super::span::{SCHEMA_URL, text};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;
/// What a collector may ask for at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("sea-mq/", env!("CARGO_PKG_VERSION"));

/// Why spans were not taken.
pub struct Refusal {
    pub why: String,
    /// Whether another attempt may succeed.
    pub is_passing: bool,
    /// How long the collector asks to be left alone.
    pub wait: Option<Duration>,
}

pub struct Collector {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    resource: Resource,
}

impl Collector {
    /// `database`: whose messages are traced.
    ///
    /// # Errors
    /// In words, when the certificates cannot be read.
    pub fn new(settings: &Settings, database: &str) -> Result<Self, String> {
        let https = HttpsConnectorBuilder::new().with_tls_config(tls(settings)?).https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
        let mut headers = settings.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let attributes = vec![
            text("service.name", &settings.service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("db.namespace", database),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        Ok(Self { http, url: settings.url.clone(), headers, resource })
    }

    /// Sends spans. Returns how many of them the collector did not want.
    ///
    /// # Errors
    /// Why none was taken.
    pub async fn send(&self, spans: Vec<Span>) -> Result<usize, Refusal> {
        let mut request = Request::new(Full::new(Bytes::from(self.request(spans).encode_to_vec())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(passing(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<usize, Refusal> {
        let response = self.http.request(request).await.map_err(|error| passing(with_cause(&error)))?;
        if !response.status().is_success() {
            return Err(refusal(&response));
        }
        let body =
            Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| passing(error.to_string()))?;
        // An answer that cannot be read has been given all the same: the status says that they were taken.
        let answer = ExportTraceServiceResponse::decode(body.to_bytes()).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or_default())
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "sea_mq".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA_URL.into() }];
        let resource_spans =
            vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans, schema_url: SCHEMA_URL.into() }];
        ExportTraceServiceRequest { resource_spans }
    }
}

fn passing(why: String) -> Refusal {
    Refusal { why, is_passing: true, wait: None }
}

/// hyper says "client error (Connect)", and its sources what that was.
fn with_cause(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// OTLP names the statuses after which spans may be sent again.
fn refusal(response: &Response<Incoming>) -> Refusal {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Refusal {
        why: format!("HTTP {}", status.as_u16()),
        is_passing: matches!(status.as_u16(), 429 | 502 | 503 | 504),
        wait: seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)),
    }
}

fn tls(settings: &Settings) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &settings.certificate {
        Some(file) => add(&mut roots, file).map_err(|error| format!("{}: {error}", file.display()))?,
        // Without TLS it does not matter that there may be none.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    Ok(())
}
