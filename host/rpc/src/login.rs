//! Who calls: each request is given its [`Caller`] before it reaches a service.
//!
//! A host without users listens on loopback only, and whoever reaches it there is the local user. With users, a caller shows a
//! name and a password (HTTP's basic authentication, RFC 7617), a token (RFC 6750), or the certificate of his connection.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::Either;
use http::header::AUTHORIZATION;
use maxhost_flows::api::Caller;
use maxhost_model::{Code, Problem};
use tonic::body::Body;
use tonic::transport::server::TlsConnectInfo;
use tower::{Layer, Service};
use zeroize::Zeroizing;

use crate::audit::Whose;
use crate::budget::{Kind, Owner, Share};
use crate::connections::{Line, line_of};
use crate::peer;
use crate::status::to_status;
use crate::tokens::TokenText;

/// Longest header with a name and a password, bytes.
const LONGEST_HEADER: usize = 2_048;

/// What a caller shows of himself.
#[derive(Clone)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The user's name.
        user: String,
        /// The password. It is wiped when it is dropped.
        password: Zeroizing<String>,
    },
    /// A token.
    Token(TokenText),
    /// The common name of the verified certificate of his connection.
    Certificate {
        /// The name.
        common_name: String,
    },
}

impl Credentials {
    /// Notes whom they name. Nothing of it is known to be true.
    fn are_shown(&self, whose: &Whose) {
        match self {
            Credentials::Password { user, .. } => whose.is_named(user),
            Credentials::Token(token) => whose.shows_token(token.id()),
            Credentials::Certificate { common_name } => whose.is_named(common_name),
        }
    }
}

/// Why somebody is not let in.
#[derive(Debug)]
pub struct Refused {
    /// What he is told.
    pub problem: Problem,
    /// Who he is, if that is known all the same.
    pub user: Option<String>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused { problem, user: None }
    }
}

/// Decides who a caller is.
#[async_trait]
pub trait Logins: Send + Sync + 'static {
    /// The user with these credentials, who calls from this address.
    ///
    /// # Errors
    /// `unauthenticated` if there is no such user or the password is another; `token-unknown`, `token-expired`, `token-revoked`;
    /// `login-delayed` after too many wrong ones.
    async fn login(&self, credentials: Credentials, from: IpAddr) -> Result<Caller, Refused>;

    /// The user of this name, if the signature is that of his key over these bytes.
    ///
    /// # Errors
    /// `unauthenticated` if there is no such user, he has no key, or the signature is not his.
    fn signed(&self, user: &str, bytes: &[u8], signature: &[u8]) -> Result<Caller, Problem>;

    /// Whether there is a user of this name who has a key.
    fn has_key(&self, user: &str) -> bool;
}

/// Puts the caller among the extensions of each request. Who needs a login and shows none is refused before his request has come.
#[derive(Clone)]
pub(crate) struct LoginLayer(pub(crate) Option<Arc<dyn Logins>>);

impl<S> Layer<S> for LoginLayer {
    type Service = LoginService<S>;

    fn layer(&self, inner: S) -> LoginService<S> {
        LoginService { logins: self.0.clone(), inner }
    }
}

/// See [`LoginLayer`].
#[derive(Clone)]
pub(crate) struct LoginService<S> {
    logins: Option<Arc<dyn Logins>>,
    inner: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for LoginService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Answer<S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(logins) = &self.logins else {
            put(&mut request, Caller::local());
            return Either::Left(self.inner.call(request));
        };
        let (credentials, from) = match shown(&request) {
            Ok(Some(shown)) => shown,
            Ok(None) => {
                return match admit_nobody(&request) {
                    Ok(()) => Either::Left(self.inner.call(request)),
                    Err(problem) => Either::Right(refused(problem)),
                };
            }
            Err(problem) => return Either::Right(refused(problem)),
        };
        if let Some(whose) = whose(&request) {
            credentials.are_shown(&whose);
        }
        let logins = Arc::clone(logins);
        // The service that was polled ready does the work; the copy takes its place.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        Either::Right(Box::pin(async move {
            match logins.login(credentials, from).await {
                Ok(caller) => match share(&request).map(|share| share.is_of(Owner::User(caller.user.clone()))) {
                    None | Some(Ok(())) => {
                        put(&mut request, caller);
                        inner.call(request).await
                    }
                    Some(Err(problem)) => {
                        if let Some(whose) = whose(&request) {
                            whose.is_of(&caller);
                        }
                        Ok(to_status(problem).into_http())
                    }
                },
                Err(Refused { problem, user }) => {
                    if let (Some(whose), Some(user)) = (whose(&request), user) {
                        whose.is_named(&user);
                    }
                    Ok(to_status(problem).into_http())
                }
            }
        }))
    }
}

/// Answers a request whose body was not looked at: what comes of it is thrown away by the transport.
fn refused<E: Send + 'static>(problem: Problem) -> Answer<E> {
    Box::pin(async { Ok(to_status(problem).into_http()) })
}

/// Lets in whoever shows nothing of himself, where that is not needed.
fn admit_nobody(request: &http::Request<Body>) -> Result<(), Problem> {
    if !Kind::of(request.uri().path()).is_open() {
        return Err(peer::nobody());
    }
    match (share(request), line_of(request.extensions())) {
        (Some(share), Some(line)) => share.is_of(Owner::Address(line.from())),
        (None, _) | (_, None) => Ok(()),
    }
}

fn share(request: &http::Request<Body>) -> Option<&Arc<Share>> {
    request.extensions().get::<Arc<Share>>()
}

fn whose(request: &http::Request<Body>) -> Option<Arc<Whose>> {
    request.extensions().get::<Arc<Whose>>().cloned()
}

/// Gives a request to its caller.
fn put(request: &mut http::Request<Body>, caller: Caller) {
    if let Some(whose) = whose(request) {
        whose.is_of(&caller);
    }
    if let Some(share) = share(request) {
        share.keeps_busy(request.extensions());
    }
    // Nobody behind the login has a use for it.
    request.headers_mut().remove(AUTHORIZATION);
    request.extensions_mut().insert(caller);
}

/// What the caller shows, and where he calls from. A password or a token is stronger than a certificate: it is a user who calls, by
/// way of a program.
fn shown(request: &http::Request<Body>) -> Result<Option<(Credentials, IpAddr)>, Problem> {
    let secured = request.extensions().get::<TlsConnectInfo<Arc<Line>>>();
    let Some(from) = line_of(request.extensions()).map(|line| line.from()) else { return Ok(None) };
    if let Some(header) = request.headers().get(AUTHORIZATION) {
        return Ok(Some((credentials(header.as_bytes())?, from)));
    }
    if Kind::of(request.uri().path()).is_open() {
        return Ok(None);
    }
    let certificate = secured.and_then(TlsConnectInfo::peer_certs);
    let Some(certificate) = certificate.as_ref().and_then(|chain| chain.first()) else { return Ok(None) };
    let common_name = common_name(certificate)
        .ok_or_else(|| Problem::new(Code::Unauthenticated, "the certificate of the connection has no common name"))?;
    Ok(Some((Credentials::Certificate { common_name }, from)))
}

/// What the header says, which is told by its first word.
fn credentials(header: &[u8]) -> Result<Credentials, Problem> {
    if let Some(text) = behind(b"bearer ", header) {
        let token = std::str::from_utf8(text).ok().and_then(TokenText::parse).map(Credentials::Token);
        return token.ok_or_else(|| Problem::new(Code::TokenUnknown, "what follows 'Bearer' is no token of maxhost"));
    }
    behind(b"basic ", header).and_then(basic).ok_or_else(|| {
        let text = "the header 'authorization' is neither 'Basic' with a name and a password nor 'Bearer' with a token";
        Problem::new(Code::Unauthenticated, text)
    })
}

/// What follows a word, whatever the case of its letters.
fn behind<'a>(word: &[u8], header: &'a [u8]) -> Option<&'a [u8]> {
    let (first, rest) = header.split_at_checked(word.len())?;
    (header.len() <= LONGEST_HEADER && first.eq_ignore_ascii_case(word)).then(|| rest.trim_ascii())
}

fn basic(encoded: &[u8]) -> Option<Credentials> {
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Credentials::Password { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The value of the header that shows a name and a password.
pub(crate) fn header(user: &str, password: &str) -> Zeroizing<String> {
    let plain = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(plain.as_bytes())))
}

/// The value of the header that shows a token.
pub(crate) fn token_header(token: &TokenText) -> Zeroizing<String> {
    Zeroizing::new(format!("Bearer {}", token.expose()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_and_a_password_are_read_from_the_header() {
        let read = |header: &str| match credentials(header.as_bytes()) {
            Ok(Credentials::Password { user, password }) => Some((user, password.to_string())),
            _ => None,
        };
        assert_eq!(read(&header("ann", "a:b\u{e9}")), Some(("ann".to_owned(), "a:b\u{e9}".to_owned())));
        assert_eq!(read("basic YTo="), Some(("a".to_owned(), String::new())));
        assert_eq!(read("Bearer YTo="), None);
        assert_eq!(read("Basic !"), None);
        assert_eq!(read("Basic YQ=="), None, "no colon");
        assert_eq!(read(&format!("Basic {}", "A".repeat(LONGEST_HEADER))), None);
        assert_eq!(read("\u{e9}\u{e9}\u{e9}"), None);
    }

    #[test]
    fn a_token_is_read_from_the_header() {
        let token = TokenText::random();
        let read = |header: &str| match credentials(header.as_bytes()) {
            Ok(Credentials::Token(read)) => Ok(read.expose() == token.expose()),
            Ok(_) => Ok(false),
            Err(problem) => Err(problem.code),
        };
        assert_eq!(read(&token_header(&token)), Ok(true));
        assert_eq!(read(&format!("bearer   {} ", token.expose())), Ok(true));
        for wrong in ["Bearer ", "Bearer x", "bearer \u{e9}", &format!("Bearer {}", "A".repeat(1_000))] {
            assert_eq!(read(wrong), Err(Code::TokenUnknown), "{wrong}");
        }
        for wrong in ["", "Bearer", &format!("Bearer{}", token.expose()), &format!("Bearer {}", "A".repeat(9_000))] {
            assert_eq!(read(wrong), Err(Code::Unauthenticated), "{wrong}");
        }
    }
}
