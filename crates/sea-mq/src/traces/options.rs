//! Where traces go. The variables are those that OpenTelemetry gives names to.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use crate::serve::options::time;

/// The one protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

#[derive(Args, Clone, Debug)]
pub struct TraceOptions {
    /// Collector of OpenTelemetry traces, as in http://localhost:4318; /v1/traces is added. Without one nothing is exported
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The same for traces alone, used as it stands
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    pub otlp_traces_endpoint: Option<String>,
    /// How it is spoken to; there is one way
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", default_value = PROTOCOL)]
    pub otlp_protocol: String,
    /// Headers for the collector, as in name=value,name=value, with %20 and its like decoded
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_name = "HEADERS")]
    pub otlp_headers: Option<String>,
    /// File with the certificates (PEM) to trust; the system's, unless it is given
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_certificate: Option<PathBuf>,
    /// Name of this service in traces
    #[arg(long, env = "OTEL_SERVICE_NAME", default_value = "sea_mq", value_name = "NAME")]
    pub otlp_service_name: String,
    /// How long spans are tried; older ones are dropped, and after a start not looked for
    #[arg(long, env = "SEA_MQ_OTLP_MAX_AGE", default_value = "600s", value_parser = time)]
    pub otlp_max_age: Duration,
}

/// What the options come to.
#[derive(Debug)]
pub struct Settings {
    pub url: Uri,
    pub headers: HeaderMap,
    pub certificate: Option<PathBuf>,
    pub service: String,
    pub max_age: Duration,
}

impl TraceOptions {
    /// `None`: nothing is to be exported.
    ///
    /// # Errors
    /// In words, what of it cannot be.
    pub fn settings(&self) -> Result<Option<Settings>, String> {
        let of = |option: &Option<String>| option.clone().filter(|text| !text.is_empty());
        let base = || of(&self.otlp_endpoint).map(|base| format!("{}/v1/traces", base.trim_end_matches('/')));
        let Some(url) = of(&self.otlp_traces_endpoint).or_else(base) else { return Ok(None) };
        if self.otlp_protocol != PROTOCOL {
            return Err(format!("the protocol {} is not spoken: {PROTOCOL} is", self.otlp_protocol));
        }
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(format!("{url}: a collector's URL begins with http:// or https://"));
        }
        Ok(Some(Settings {
            url: uri,
            headers: headers(self.otlp_headers.as_deref().unwrap_or_default())?,
            certificate: self.otlp_certificate.clone().filter(|path| !path.as_os_str().is_empty()),
            service: self.otlp_service_name.clone(),
            max_age: self.otlp_max_age,
        }))
    }
}

fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        // Not the pair itself: it may be a secret.
        let bad = || "the headers for the collector are not name=value,name=value".to_owned();
        let (name, value) = pair.split_once('=').ok_or_else(bad)?;
        let value = percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| bad())?;
        headers.append(name, HeaderValue::from_bytes(&value).map_err(|_| bad())?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TraceOptions {
        TraceOptions {
            otlp_endpoint: None,
            otlp_traces_endpoint: None,
            otlp_protocol: PROTOCOL.into(),
            otlp_headers: None,
            otlp_certificate: None,
            otlp_service_name: "sea_mq".into(),
            otlp_max_age: Duration::from_secs(600),
        }
    }

    #[test]
    fn an_endpoint_for_all_signals_gets_the_path_and_one_for_traces_stands_as_it_is() {
        let url = |options: TraceOptions| options.settings().map(|found| found.map(|found| found.url.to_string()));
        let (all, own) = (Some("http://c:4318/".to_owned()), Some("https://c/x".to_owned()));
        assert_eq!(url(options()), Ok(None));
        assert_eq!(url(TraceOptions { otlp_endpoint: Some(String::new()), ..options() }), Ok(None));
        let both = TraceOptions { otlp_endpoint: all.clone(), otlp_traces_endpoint: own, ..options() };
        assert_eq!(url(both), Ok(Some("https://c/x".into())));
        let one = TraceOptions { otlp_endpoint: all, ..options() };
        assert_eq!(url(one.clone()), Ok(Some("http://c:4318/v1/traces".into())));
        assert!(url(TraceOptions { otlp_protocol: "grpc".into(), ..one }).is_err());
        assert!(url(TraceOptions { otlp_endpoint: Some("c:4318".into()), ..options() }).is_err());
    }

    #[test]
    fn headers_are_decoded() {
        let found = headers("api-key=a%20b, x=1=2,").expect("headers");
        assert!(found["api-key"] == "a b" && found["x"] == "1=2", "{found:?}");
        assert!(headers("nothing").is_err() && headers("a b=c").is_err());
    }
}
