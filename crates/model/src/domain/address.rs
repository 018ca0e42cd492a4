//! The addresses of `sea_mq.nats_url`: taken apart, and shown without their credentials.
//!
//! The only place that knows what of such a text may be seen. A text that cannot be taken apart is not shown at all: where
//! its credentials end is then anybody's guess.

use std::fmt::{self, Debug, Display};

/// The port that is meant where none is given.
const PORT: u16 = 4222;

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub tls: bool,
    /// A name or a number; one of IPv6 without its brackets.
    pub host: String,
    pub port: u16,
    pub login: Option<Login>,
}

/// What a URL says of who logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password(String, String),
    Token(String),
}

impl Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `host:port`, without credentials.
impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The setting as it was written. It shows itself without credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Urls(String);

impl Urls {
    pub fn new(setting: &str) -> Self {
        Self(setting.to_owned())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        items(&self.0).count()
    }

    /// All of them.
    ///
    /// # Errors
    /// What is wrong, in words that give nothing of the text away.
    pub fn addresses(&self) -> Result<Vec<Address>, String> {
        let addresses = each(&self.0);
        let of = if addresses.len() > 1 { format!(" {{}} of {}", addresses.len()) } else { String::new() };
        let wrong = |(place, address): (usize, Result<Address, &'static str>)| {
            address.map_err(|why| {
                let which = of.replace("{}", &(place + 1).to_string());
                format!("URL{which} in sea_mq.nats_url is not a NATS URL: {why}")
            })
        };
        addresses.into_iter().enumerate().map(wrong).collect()
    }

    /// As one may see it: without credentials, and without what cannot be read.
    pub fn redacted(&self) -> String {
        let shown = |address: &Address| {
            let scheme = if address.tls { "tls" } else { "nats" };
            let login = if address.login.is_some() { "***@" } else { "" };
            format!("{scheme}://{login}{address}")
        };
        each(&self.0).iter().flatten().map(shown).collect::<Vec<_>>().join(",")
    }
}

impl Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn each(list: &str) -> Vec<Result<Address, &'static str>> {
    let items: Vec<&str> = items(list).collect();
    // What stands before the `@` of a later part may be the beginning of its password.
    let last_login = items.iter().rposition(|item| item.contains('@'));
    let address = |(place, item): (usize, &&str)| {
        let torn = last_login.is_some_and(|last| place < last) && !item.contains('@');
        if torn { Err("it may be a part of a password: write a comma in one as %2C") } else { parse(item) }
    };
    items.iter().enumerate().map(address).collect()
}

fn parse(item: &str) -> Result<Address, &'static str> {
    let (scheme, rest) = item.split_once("://").unwrap_or(("nats", item));
    let tls = match scheme {
        "nats" => false,
        "tls" => true,
        _ => return Err("the scheme must be nats or tls"),
    };
    let (authority, path) = rest.split_once(['/', '?', '#']).unwrap_or((rest, ""));
    if path.contains('@') {
        return Err("write /, ? and # in a password as %2F, %3F and %23");
    }
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (Some(Login::parse(login)), place),
        None => (None, authority),
    };
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None => place.find(':').map_or((place, ""), |colon| place.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| "its port is no number")?,
        None if port.is_empty() => PORT,
        None => return Err("something stands between its host and its port"),
    };
    let sound = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || !host.chars().all(sound) {
        return Err("it has no host, or none that can be one");
    }
    Ok(Address { tls, host: host.to_owned(), port, login })
}

impl Login {
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, password)) => Self::Password(percent_decode(user), percent_decode(password)),
            None => Self::Token(percent_decode(text)),
        }
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(code) if *first == b'%' => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text in which URLs may stand, without what stands before an `@` in them.
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        // A password may hold anything but this.
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(after.len());
        rest = after[..end].rfind('@').map_or(after, |at| &after[at + 1..]);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(url: &str) -> Result<Address, String> {
        Urls::new(url).addresses().map(|mut all| all.remove(0))
    }

    #[test]
    fn url_is_taken_apart() {
        let address = one("tls://al%40ice:p%3Aw@broker:5222").unwrap();
        assert_eq!(address.to_string(), "broker:5222");
        assert!(address.tls);
        assert_eq!(address.login, Some(Login::Password("al@ice".into(), "p:w".into())));
        assert_eq!(one("nats://tok@h").unwrap().login, Some(Login::Token("tok".into())));
        assert_eq!(one("nats://u:p@w@h").unwrap().login, Some(Login::Password("u".into(), "p@w".into())));
        assert_eq!(one("h").unwrap().to_string(), "h:4222");
        assert_eq!(one("nats://[::1]:1").unwrap().to_string(), "[::1]:1");
        assert_eq!(one("nats://h:4222/").unwrap().to_string(), "h:4222");
        assert_eq!(Urls::new(" nats://a, ,nats://b:1").addresses().unwrap().len(), 2);
        assert_eq!(Urls::new(" nats://a, ,nats://b:1").count(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_nothing() {
        for url in [
            "nats://app:Xk9/SECRET@host",
            "nats://app:Xk9,SECRET@host",
            "nats://app:4222,SECRET@host",
            "nats://app:Xk9?SECRET@host",
            "nats://app:Xk9#SECRET@host",
            "nats://app:SECRET",
            "nats://app:SECRET@",
            "nats://app:SECRET@host:port",
            "nats://app:SECRET@ho st",
            "nats://app:SECRET@[::1]x",
            "http://app:SECRET@host",
            "SECRET/SECRET@host",
        ] {
            let urls = Urls::new(url);
            let error = urls.addresses().unwrap_err();
            let shown = [error.clone(), urls.redacted(), format!("{urls:?}")].join(" ");
            for part in ["SECRET", "Xk9", "app"] {
                assert!(!shown.contains(part), "{url}: {shown}");
            }
        }
    }

    #[test]
    fn addresses_are_shown_without_their_credentials() {
        let shown = |urls: &str| Urls::new(urls).redacted();
        assert_eq!(shown("nats://a:1, tls://b"), "nats://a:1,tls://b:4222");
        assert_eq!(shown("nats://app:Xk9@SECRET@host"), "nats://***@host:4222");
        assert_eq!(shown("nats://u:p@a,nats://t@b,c"), "nats://***@a:4222,nats://***@b:4222,nats://c:4222");
        assert_eq!(shown(""), "");
        assert_eq!(format!("{:?}", one("nats://app:SECRET@h").unwrap().login), "Some(***)");
    }

    #[test]
    fn wrong_one_of_several_is_named_by_its_place() {
        let error = Urls::new("nats://a,http://b").addresses().unwrap_err();
        assert_eq!(error, "URL 2 of 2 in sea_mq.nats_url is not a NATS URL: the scheme must be nats or tls");
        assert_eq!(
            one("nats://").unwrap_err(),
            "URL in sea_mq.nats_url is not a NATS URL: it has no host, or none that can be one"
        );
    }

    #[test]
    fn credentials_leave_a_text() {
        assert_eq!(redact("nats://u:p@h:4222: refused"), "nats://h:4222: refused");
        assert_eq!(redact("a nats://tok@h, tls://x:y/z,w@q/p b"), "a nats://h, tls://q/p b");
        assert_eq!(redact("mail me@there"), "mail me@there");
    }

    #[test]
    fn broken_escapes_are_left_alone() {
        assert_eq!(percent_decode("a%2"), "a%2");
        assert_eq!(percent_decode("%zz%41"), "%zzA");
    }
}
