//! Where an endpoint of kind nats is: `nats://host:port/subject` or `tls://…`. Without a subject each event goes to its own, as
//! the relay publishes it; in a subject, `{subject}` stands for that one.

use std::fmt;
use std::str::FromStr;

use crate::domain::address::{Address, Urls};

const OWN: &str = "{subject}";
/// What begins so is the server's own, or answers requests.
const RESERVED: [char; 2] = ['$', '_'];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: Address,
    subject: Option<String>,
}

/// Why a text is no such place. The words give nothing of it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("it has spaces, control characters or backslashes")]
    Syntax,
    #[error("its scheme is another one than nats and tls")]
    Scheme,
    #[error("it has a user, a password or a token")]
    Login,
    #[error("it is not host:port")]
    Address,
    #[error("what follows the first / is not a subject to publish to")]
    Subject,
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if !text.chars().all(|c| c.is_ascii_graphic() && c != '\\') {
            return Err(NoPlace::Syntax);
        }
        let rest = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://")).ok_or(NoPlace::Scheme)?;
        if rest.contains('@') {
            return Err(NoPlace::Login);
        }
        let (host, subject) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains([',', '?', '#', '{']) {
            return Err(NoPlace::Address);
        }
        let urls = Urls::new(&text[..text.len() - rest.len() + host.len()]);
        let address = urls.addresses().ok().and_then(|mut all| all.pop()).ok_or(NoPlace::Address)?;
        let subject = Some(subject.to_owned()).filter(|subject| !subject.is_empty());
        let sound = |subject: &String| {
            let token = |token: &str| !token.is_empty() && (token == OWN || !token.contains(['*', '>', '{', '}']));
            subject.split('.').all(token) && !subject.starts_with(RESERVED) && subject.matches(OWN).count() <= 1
        };
        if !subject.as_ref().is_none_or(sound) {
            return Err(NoPlace::Subject);
        }
        Ok(Self { address, subject })
    }
}

impl Place {
    /// Where something goes whose own subject (or filter) is this.
    pub fn subject(&self, own: &str) -> String {
        self.subject.as_ref().map_or_else(|| own.to_owned(), |subject| subject.replace(OWN, own))
    }
}

/// In its normal form.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.address.tls { "tls" } else { "nats" };
        write!(f, "{scheme}://{}", self.address)?;
        self.subject.as_ref().map_or(Ok(()), |subject| write!(f, "/{subject}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_server_and_where_there() {
        let of = |text: &str| text.parse::<Place>().map(|place| (place.to_string(), place.subject("a.event.b.v1")));
        let said = |place: &str, subject: &str| Ok((place.to_owned(), subject.to_owned()));
        assert_eq!(of("nats://hub"), said("nats://hub:4222", "a.event.b.v1"));
        assert_eq!(of("tls://hub:5222/"), said("tls://hub:5222", "a.event.b.v1"));
        assert_eq!(of("nats://[::1]:1/shop"), said("nats://[::1]:1/shop", "shop"));
        assert_eq!(of("nats://hub/shop.{subject}.x"), said("nats://hub:4222/shop.{subject}.x", "shop.a.event.b.v1.x"));
    }

    #[test]
    fn what_is_none_is_refused() {
        let why = |text: &str| text.parse::<Place>().unwrap_err();
        for text in ["", "hub", "http://hub", "nats:/hub", "ws://hub"] {
            assert_eq!(why(text), NoPlace::Scheme, "{text}");
        }
        for text in ["nats://u:p@hub", "nats://token@hub", "nats://@hub", "nats://hub/@x"] {
            assert_eq!(why(text), NoPlace::Login, "{text}");
        }
        for text in [
            "nats://",
            "nats://:4222",
            "nats://hub:x",
            "nats://a,nats",
            "nats://hub?x",
            "nats://hub#x",
            "nats://{subject}",
        ] {
            assert_eq!(why(text), NoPlace::Address, "{text}");
        }
        for subject in ["a..b", "*", "a.>", "$JS.API.INFO", "_INBOX.x", ".", "a{subject}", "{subject}.{subject}", "{x}"]
        {
            assert_eq!(why(&format!("nats://hub/{subject}")), NoPlace::Subject, "{subject}");
        }
        for text in ["nats://h ub", "nats://hub/a\r\nPUB x", "nats://hub\\x", "nats://hüb"] {
            assert_eq!(why(text), NoPlace::Syntax, "{text}");
        }
    }
}
