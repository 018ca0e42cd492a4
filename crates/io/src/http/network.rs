//! How endpoints are reached, as an administrator says.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use url::Url;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Addresses that are reached although they are not public.
    pub allowed: Vec<IpNet>,
    /// Whether `http://` may be used.
    pub allow_http: bool,
    /// A proxy that is asked to connect (`http://host:port`). It gets addresses, never names.
    pub proxy: Option<Url>,
    /// Servers that resolve names; none: those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// Authorities beside those that the system trusts, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// Why a text is no URL of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEndpoint {
    #[error("it is no URL: {0}")]
    Syntax(String),
    #[error("its scheme is {0}; https is wanted")]
    Scheme(String),
    #[error("http:// is not allowed")]
    Plain,
    #[error("it has a user or a password")]
    UserInfo,
    #[error("it has a fragment")]
    Fragment,
    #[error("it has no host")]
    NoHost,
    #[error("its address must not be reached")]
    Blocked,
}

impl Network {
    pub fn guard(&self) -> super::guard::Guard {
        super::guard::Guard::new(self.allowed.clone())
    }

    /// The URL of an endpoint. Read here and nowhere else: what is checked is what is used.
    ///
    /// # Errors
    /// Why it is none.
    pub fn endpoint_url(&self, text: &str) -> Result<Url, NotAnEndpoint> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(NotAnEndpoint::Syntax("it has spaces, control characters or backslashes".into()));
        }
        let url = Url::parse(text).map_err(|error| NotAnEndpoint::Syntax(error.to_string()))?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => return Err(NotAnEndpoint::Plain),
            other => return Err(NotAnEndpoint::Scheme(other.into())),
        }
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return Err(NotAnEndpoint::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(NotAnEndpoint::Fragment);
        }
        let literal = match url.host() {
            None => return Err(NotAnEndpoint::NoHost),
            Some(url::Host::Domain(_)) => None,
            Some(url::Host::Ipv4(address)) => Some(address.into()),
            Some(url::Host::Ipv6(address)) => Some(address.into()),
        };
        match literal {
            Some(address) if !self.guard().lets(address) => Err(NotAnEndpoint::Blocked),
            _ => Ok(url),
        }
    }
}

/// What stands between `//` and the path. The parser drops an empty user.
fn authority(text: &str) -> &str {
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network { allow_http: true, ..Network::default() }
    }

    #[test]
    fn what_a_person_may_misread_is_refused() {
        let why = |text: &str| network().endpoint_url(text).err();
        assert_eq!(why("https://example.com:8443/hook?a=b"), None);
        assert_eq!(why("http://example.com"), None);
        for text in [
            "https://user@example.com/",
            "https://u:p@example.com/",
            "https://@example.com/",
            "https://example.com@10.0.0.1/",
        ] {
            assert_eq!(why(text), Some(NotAnEndpoint::UserInfo), "{text}");
        }
        // Every way to write an address of IPv4 that a browser understands.
        for text in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "http://169.254.169.254/latest",
            "https://１２７.0.0.1/",
        ] {
            assert_eq!(why(text), Some(NotAnEndpoint::Blocked), "{text}");
        }
        for text in [
            "https://example.com\\@10.0.0.1/",
            "https://exa mple.com",
            "https://e.com/\r\nX: y",
            "",
            "example.com",
            "https://",
        ] {
            assert!(matches!(why(text), Some(NotAnEndpoint::Syntax(_))), "{text}: {:?}", why(text));
        }
        assert_eq!(why("ftp://example.com/"), Some(NotAnEndpoint::Scheme("ftp".into())));
        assert_eq!(why("file:///etc/passwd"), Some(NotAnEndpoint::Scheme("file".into())));
        assert_eq!(why("https://example.com/#a"), Some(NotAnEndpoint::Fragment));
        assert_eq!(Network::default().endpoint_url("http://example.com/").err(), Some(NotAnEndpoint::Plain));
    }
}
