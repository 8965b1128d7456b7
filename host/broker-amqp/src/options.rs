//! How a host finds the broker and what it may keep in memory for it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use maxhost_broker::BrokerError;
use zeroize::Zeroizing;

use crate::error::refused;

/// How an [`crate::AmqpBroker`] is opened.
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    /// The servers.
    pub address: Address,
    /// Who the host is (SASL PLAIN). `None`: it names nobody (SASL ANONYMOUS), as brokers want it that go by certificates.
    pub credentials: Option<Credentials>,
    /// Whom the host trusts and what it shows. Needed if, and only if, the address begins with `amqps://`.
    pub tls: Option<Tls>,
    /// Where the management of a RabbitMQ is. `None`: the broker is Apache Artemis, which is asked by messages.
    pub management: Option<ManagementAddress>,
    /// Bytes that the body of a message may have.
    pub max_message_bytes: usize,
    /// A connection on which nothing has come for so long is given up. The broker is told, and sends something in time.
    pub idle_timeout: Duration,
    /// The session timeout of the ownership service. A broker that waits longer until it takes the queues from a host that
    /// hangs is refused. `None`: not checked.
    pub session_timeout: Option<Duration>,
    /// Bytes of messages that may be on their way to the broker at once. Whoever sends more waits; one message of the
    /// largest size passes in any case.
    pub sending_bytes: usize,
    /// Bytes of messages that all consumers together may have in hand. Beyond it a consumer gets one message at a time.
    pub receiving_bytes: usize,
    /// How often a listener for notices looks which queues hold messages, for what no notice came for.
    pub sweep: Duration,
    /// For so long after a message was put into a queue of which nothing is known it is not asked whether somebody consumes it, and so
    /// no notice is put. For hosts that raise the demand for a recipient themselves: he is being opened meanwhile, and a notice
    /// would have somebody raise the demand once more. Zero: it is asked at once.
    pub notice_after: Duration,
}

impl AmqpOptions {
    /// The defaults, for this address: messages up to 10 MiB, and 64 MiB in each direction.
    #[must_use]
    pub fn new(address: Address) -> AmqpOptions {
        AmqpOptions {
            address,
            credentials: None,
            tls: None,
            management: None,
            max_message_bytes: 10 << 20,
            idle_timeout: Duration::from_secs(5),
            session_timeout: None,
            sending_bytes: 64 << 20,
            receiving_bytes: 64 << 20,
            sweep: Duration::from_secs(10),
            notice_after: Duration::ZERO,
        }
    }

    /// Whether a host may connect like this.
    ///
    /// # Errors
    /// [`maxhost_broker::Permanent::Refused`] says what is wrong.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        match (self.address.encrypted, &self.tls) {
            (true, None) => Err(refused("an address with amqps:// needs the certificates of the broker's authority")),
            (false, Some(_)) => Err(refused("certificates are given for an address without TLS: write amqps://")),
            (false, None) if !self.address.is_loopback() => Err(refused(
                "messages and passwords are sent to other machines encrypted only: write amqps:// and name the \
                 certificates of the broker's authority",
            )),
            _ => self.management.as_ref().map_or(Ok(()), |address| self.check_management(address)),
        }
    }

    fn check_management(&self, address: &ManagementAddress) -> Result<(), BrokerError> {
        match (address.encrypted, &self.tls) {
            (true, None) => Err(refused("a management at https:// needs the certificates of the broker's authority")),
            (false, _) if !are_here(&address.servers) => {
                Err(refused("passwords are sent to other machines encrypted only: write https:// for its management"))
            }
            _ if self.credentials.is_none() => {
                Err(refused("its management is asked by a user with a password, and its address names no user"))
            }
            _ => Ok(()),
        }
    }
}

/// A user and a password.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

impl Credentials {
    /// A user with this password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials { user: user.into(), password: Zeroizing::new(password.into()) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How connections are encrypted, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Certificates of the authorities that the broker is trusted by.
    pub authorities: String,
    /// The host's certificate chain and private key, if the broker asks for them.
    pub identity: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("has_identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// Where a broker is: `amqp://user@host:port`, or `amqps://` with TLS. Several servers, separated by commas, are one broker
/// and its stand-ins: they are tried one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether connections are encrypted.
    pub encrypted: bool,
    /// The user to log in as, if the address names one.
    pub user: Option<String>,
    /// The names and ports of the servers; at least one.
    pub servers: Vec<(String, u16)>,
}

impl Address {
    /// Reads a URL. The port of a server without one is 5672, and 5671 with TLS.
    ///
    /// # Errors
    /// [`maxhost_broker::Permanent::Refused`] says what is wrong with it. The text of the URL is told only if it has no
    /// password in it.
    pub fn parse(url: &str) -> Result<Address, BrokerError> {
        const FORM: &str = "such as amqps://user@host:5671";
        let refuse = |what: &str| refused(format!("'{url}' is no address of a broker {FORM}: {what}"));
        let (encrypted, rest) = match (url.strip_prefix("amqp://"), url.strip_prefix("amqps://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => {
                return Err(refused(format!(
                    "this is no address of a broker {FORM}: it begins with neither amqp:// nor amqps://"
                )));
            }
        };
        let (user, servers) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user, _)) if user.contains(':') => {
                return Err(refused(format!(
                    "the address of a broker is written without a password, {FORM}: it has a setting of its own"
                )));
            }
            Some((user, servers)) if !user.is_empty() && user.chars().all(is_plain) => (Some(user.to_owned()), servers),
            Some(_) => return Err(refuse("the user is not made of letters, digits, '-', '_' and '.'")),
        };
        let servers = servers_of(servers, if encrypted { 5671 } else { 5672 }).map_err(refuse)?;
        Ok(Address { encrypted, user, servers })
    }

    /// Whether all servers are on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        are_here(&self.servers)
    }
}

/// Where the management of a RabbitMQ is: `http://host:port`, or `https://` with TLS. It is asked as the user that the host logs
/// in as. Of several servers, separated by commas, the first that answers is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementAddress {
    /// Whether connections are encrypted.
    pub encrypted: bool,
    /// The names and ports of the servers; at least one.
    pub servers: Vec<(String, u16)>,
}

impl ManagementAddress {
    /// Reads a URL. The port of a server without one is 15672, and 15671 with TLS.
    ///
    /// # Errors
    /// [`maxhost_broker::Permanent::Refused`] says what is wrong with it, without its text: somebody may have put a password in.
    pub fn parse(url: &str) -> Result<ManagementAddress, BrokerError> {
        let refuse = |what: &str| {
            refused(format!("this is no address of a RabbitMQ's management such as https://host:15671: {what}"))
        };
        let (encrypted, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(refuse("it begins with neither http:// nor https://")),
        };
        if rest.contains('@') {
            return Err(refuse("it names no user: the one of the broker's address is taken"));
        }
        let servers = servers_of(rest, if encrypted { 15671 } else { 15672 }).map_err(refuse)?;
        Ok(ManagementAddress { encrypted, servers })
    }
}

/// Reads names and ports of servers, separated by commas.
fn servers_of(text: &str, default: u16) -> Result<Vec<(String, u16)>, &'static str> {
    const BAD_NAME: &str = "the name of a server is missing, or has other than letters, digits, '-', '_' and '.'; an IPv6 \
                            address is written in brackets";
    let server = |text: &str| {
        let (name, port, is_good) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((name, port)) => (name, port, name.parse::<Ipv6Addr>().is_ok()),
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (name, port, !name.is_empty() && name.chars().all(is_plain))
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => Ok(default),
            Some(port) => port.parse().map_err(|_| "a port is no number from 0 to 65535"),
            None => Err(BAD_NAME),
        };
        if is_good { Ok((name.to_owned(), port?)) } else { Err(BAD_NAME) }
    };
    text.split(',').map(server).collect()
}

/// Whether all servers are on this machine.
fn are_here(servers: &[(String, u16)]) -> bool {
    servers.iter().all(|(name, _)| match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name == "localhost",
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.encrypted { "amqps://" } else { "amqp://" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (index, (name, port)) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match name.contains(':') {
                true => write!(f, "{comma}[{name}]:{port}")?,
                false => write!(f, "{comma}{name}:{port}")?,
            }
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let address = Address::parse("amqps://max@h1:5000,h2,[::1]:9,[::1]").unwrap();
        assert!(address.encrypted);
        assert_eq!(address.user.as_deref(), Some("max"));
        let servers =
            [("h1", 5000), ("h2", 5671), ("::1", 9), ("::1", 5671)].map(|(name, port)| (name.to_owned(), port));
        assert_eq!(address.servers, servers);
        assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
        assert_eq!(Address::parse("amqp://127.0.0.1").unwrap().servers, [("127.0.0.1".to_owned(), 5672)]);
        for bad in [
            "",
            "h1:5672",
            "http://h1:5672",
            "amqp://",
            "amqp://@h1",
            "amqp://a b@h1",
            "amqp://h1:x",
            "amqp://h1:70000",
            "amqp://h1,,h2",
            "amqp://h1/queue",
            "amqp://::1",
            "amqp://[h1]",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_a_management_are_read() {
        let address = ManagementAddress::parse("https://h1:1,[::1]").unwrap();
        assert_eq!((address.encrypted, address.servers), (true, vec![("h1".to_owned(), 1), ("::1".to_owned(), 15671)]));
        assert_eq!(ManagementAddress::parse("http://h1").unwrap().servers, [("h1".to_owned(), 15672)]);
        for bad in ["", "h1", "amqp://h1", "https://", "https://h1/api", "https://h1:x"] {
            assert!(ManagementAddress::parse(bad).is_err(), "{bad}");
        }
        let error = ManagementAddress::parse("https://max:geheim@h1").unwrap_err().to_string();
        assert!(!error.contains("geheim") && error.contains("no user"), "{error}");
    }

    #[test]
    fn a_management_is_asked_by_a_user_and_from_other_machines_encrypted_only() {
        let with = |url: &str, management: &str, user: bool| {
            let address = Address::parse(url).unwrap();
            let tls = address.encrypted.then(|| Tls { authorities: String::new(), identity: None });
            let credentials = user.then(|| Credentials::new("max", "geheim"));
            let management = Some(ManagementAddress::parse(management).unwrap());
            AmqpOptions { tls, credentials, management, ..AmqpOptions::new(address) }.check()
        };
        with("amqp://127.0.0.1", "http://localhost", true).unwrap();
        with("amqps://h1", "https://h1", true).unwrap();
        with("amqps://h1", "http://127.0.0.1", true).unwrap();
        with("amqps://h1", "http://h1", true).unwrap_err();
        with("amqp://127.0.0.1", "https://localhost", true).unwrap_err();
        with("amqp://127.0.0.1", "http://localhost", false).unwrap_err();
    }

    #[test]
    fn secrets_are_not_shown() {
        let error = Address::parse("amqp://max:geheim@h1").unwrap_err().to_string();
        assert!(!error.contains("geheim") && error.contains("without a password"), "{error}");
        let tls = Tls { authorities: String::new(), identity: Some((String::new(), Zeroizing::new("key".to_owned()))) };
        let shown = format!("{:?} {tls:?}", Credentials::new("max", "geheim"));
        assert_eq!(shown, "Credentials { user: \"max\", .. } Tls { has_identity: true, .. }");
    }

    #[test]
    fn other_machines_are_reached_encrypted_only() {
        let with = |url: &str, tls: bool| {
            let tls = tls.then(|| Tls { authorities: String::new(), identity: None });
            AmqpOptions { tls, ..AmqpOptions::new(Address::parse(url).unwrap()) }.check()
        };
        for good in [("amqp://127.0.0.1", false), ("amqp://localhost,[::1]", false), ("amqps://h1", true)] {
            with(good.0, good.1).unwrap();
        }
        for bad in
            [("amqp://h1", false), ("amqp://127.0.0.1,h1", false), ("amqps://h1", false), ("amqp://127.0.0.1", true)]
        {
            with(bad.0, bad.1).unwrap_err();
        }
    }
}
