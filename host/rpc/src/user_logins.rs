//! Logging in as a user of a file.
//!
//! Hashing a password takes tens of milliseconds and mebibytes on purpose, so a login that was right is remembered for a while
//! (by a keyed hash, with a key that never leaves the process), and wrong ones are counted (`wrong_logins.rs`). A token costs next
//! to nothing to look at, so each is; wrong ones count for their address, as wrong passwords do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use async_trait::async_trait;
use jiff::Timestamp;
use maxhost_flows::Rights;
use maxhost_flows::api::Caller;
use maxhost_model::{Code, Problem};
use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::login::{Credentials, Logins, Refused};
use crate::looks::{Looks, UsersSource};
use crate::tokens::TokenText;
use crate::users::{LONGEST_PASSWORD, User, Users, check_name, hash_password};
use crate::wrong_logins::{Now, Subject, WrongLogins, remember};

/// How long a login that was right is remembered. Another password, or a user who is gone, counts at once all the same.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Passwords that are hashed at once, so that a flood of logins takes neither all memory nor all cores.
const HASHED_AT_ONCE: usize = 2;
/// Logins that may wait for being hashed.
const WAITING: usize = 64;

/// Lets the users of a file in.
pub struct UserLogins {
    users: RwLock<Arc<Users>>,
    /// Key of the hashes of logins that are remembered.
    key: [u8; 32],
    /// When a login was right: by the keyed hash of name, password and stored hash.
    known: Mutex<HashMap<[u8; 32], Instant>>,
    wrong: WrongLogins,
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
    looks: Looks,
    clock: Clock,
}

/// What time it is; tests have a clock of their own.
struct Clock {
    now: Box<Now>,
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Clock {
    fn of_system() -> Clock {
        Clock { now: Box::new(Instant::now), wall: Box::new(Timestamp::now) }
    }
}

/// A password that is tried.
struct Tried {
    /// The user of the name that was shown with it.
    user: Option<User>,
    /// What it is remembered by if it is right; `None` if it cannot be.
    print: Option<[u8; 32]>,
}

impl UserLogins {
    /// Lets these users in.
    #[must_use]
    pub fn new(users: Users) -> UserLogins {
        UserLogins::with_clock(users, Clock::of_system())
    }

    /// The same, and looks for changes at their source before it refuses somebody whom it does not know.
    #[must_use]
    pub fn of_source(users: Users, source: Arc<dyn UsersSource>) -> UserLogins {
        UserLogins { looks: Looks::new(Some(source)), ..UserLogins::new(users) }
    }

    fn with_clock(users: Users, clock: Clock) -> UserLogins {
        let mut key = [0; 32];
        rand::fill(&mut key);
        UserLogins {
            users: RwLock::new(Arc::new(users)),
            key,
            known: Mutex::default(),
            wrong: WrongLogins::default(),
            hashing: Arc::new(Semaphore::new(HASHED_AT_ONCE)),
            waiting: Semaphore::new(WAITING),
            looks: Looks::new(None),
            clock,
        }
    }

    /// Lets these in from now on, and nobody else. Streams that are open go on.
    pub fn replace(&self, users: Users) {
        *self.users.write() = Arc::new(users);
    }

    fn user(&self, name: &str) -> Option<User> {
        self.users.read().user(name).cloned()
    }

    async fn by_password(&self, name: String, password: &str, from: IpAddr) -> Result<Caller, Problem> {
        if let Some(caller) = self.remembered(&self.tried(&name, password)) {
            return Ok(caller);
        }
        // An oversized name is no user's; it is not kept.
        let mut subjects = vec![Subject::Address(from)];
        if check_name(&name).is_ok() {
            subjects.push(Subject::Name(name.clone()));
        }
        self.wrong.may_try(&subjects, &*self.clock.now)?;
        // An unknown name costs what a known one does, here and below, so that names cannot be told apart by time.
        self.looks.look().await;
        let tried = self.tried(&name, password);
        let turn = self.turn_to_hash().await?;
        // Another login with the same password may have been found right meanwhile.
        if let Some(caller) = self.remembered(&tried) {
            return Ok(caller);
        }
        let counted = self.wrong.count(subjects, &*self.clock.now)?;
        let Tried { user, print } = tried;
        let hash = user.as_ref().and_then(|user| user.hash.clone());
        // The turn is kept until it is known what the try counts as, or those that come next would see it as a wrong one.
        let (right, _turn) = verify(password, hash, turn).await?;
        match user.filter(|_| right) {
            Some(user) => {
                self.wrong.take_back(counted);
                if let Some(print) = print {
                    let now = (self.clock.now)();
                    remember(&mut self.known.lock(), print, now, |at| now.duration_since(*at) < REMEMBERED);
                }
                Ok(caller(&user))
            }
            None => Err(Problem::new(Code::Unauthenticated, "there is no such user, or the password is another")),
        }
    }

    fn tried(&self, name: &str, password: &str) -> Tried {
        let user = self.user(name);
        let hash = user.as_ref().and_then(|user| user.hash.as_deref());
        let print = hash.map(|hash| self.print(name, password, hash));
        Tried { user, print }
    }

    /// The user of a password that was found right before.
    fn remembered(&self, tried: &Tried) -> Option<Caller> {
        let is_known = tried.print.is_some_and(|print| self.is_known(&print));
        tried.user.as_ref().filter(|_| is_known).map(caller)
    }

    /// Whoever shows the whole of a token is told what is wrong with it, and held up by nobody. All others are told the same.
    async fn by_token(&self, shown: &TokenText, from: IpAddr) -> Result<Caller, Refused> {
        if let Some(told) = self.of_holder(shown) {
            return told;
        }
        self.wrong.may_try(&[Subject::Address(from)], &*self.clock.now)?;
        self.looks.look().await;
        if let Some(told) = self.of_holder(shown) {
            return told;
        }
        self.wrong.count(vec![Subject::Address(from)], &*self.clock.now)?;
        Err(Problem::new(Code::TokenUnknown, "there is no such token").into())
    }

    /// What the holder of a token is told; `None` if this is the whole of none.
    fn of_holder(&self, shown: &TokenText) -> Option<Result<Caller, Refused>> {
        let users = Arc::clone(&self.users.read());
        let token = users.token(shown.id());
        // An id that nobody has costs what a known one does.
        let kept = token.map_or(&[0; 32], |token| &token.digest);
        let is_right = kept[..].ct_eq(&shown.digest()[..]);
        let token = token.filter(|_| bool::from(is_right))?;
        let id = shown.id();
        let problem = match &token.rights {
            Some(rights) if !token.is_revoked && (self.clock.wall)() < token.expires => {
                return Some(Ok(Caller::new(token.user.clone(), Arc::clone(rights))));
            }
            Some(_) if !token.is_revoked => {
                Problem::new(Code::TokenExpired, format!("token {id} has expired at {}", token.expires))
            }
            Some(_) | None => Problem::new(Code::TokenRevoked, format!("token {id} was revoked")),
        };
        Some(Err(Refused { problem: problem.detail("token", id), user: Some(token.user.clone()) }))
    }

    async fn by_certificate(&self, common_name: &str) -> Result<Caller, Refused> {
        if self.user(common_name).is_none() {
            self.looks.look().await;
        }
        self.user(common_name).as_ref().map(caller).ok_or_else(|| {
            let text = format!("the certificate is of '{common_name}', and no user is called so");
            Problem::new(Code::Unauthenticated, text).into()
        })
    }

    /// What a right login is remembered by. The stored hash is part of it: a new password makes all that is remembered void.
    fn print(&self, name: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [name, password, hash] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn is_known(&self, print: &[u8; 32]) -> bool {
        let now = (self.clock.now)();
        self.known.lock().get(print).is_some_and(|at| now.duration_since(*at) < REMEMBERED)
    }

    /// Few passwords are hashed at once, and not many wait for it.
    async fn turn_to_hash(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let overloaded = || Problem::new(Code::Overloaded, "too many logins at once");
        let _waiting = self.waiting.try_acquire().map_err(|_| overloaded())?;
        Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| overloaded())
    }
}

/// Whether the password has this hash. A thread that may block finds out, and has the turn until then, also if nobody waits
/// for the answer any more. Gives the turn back. What can be nobody's password is refused at once, whoever is named: nothing is
/// hashed for an unknown name then, so nothing may be for a known one.
async fn verify(
    password: &str,
    hash: Option<String>,
    turn: OwnedSemaphorePermit,
) -> Result<(bool, OwnedSemaphorePermit), Problem> {
    if password.is_empty() || password.len() > LONGEST_PASSWORD {
        return Ok((false, turn));
    }
    let password = zeroize::Zeroizing::new(password.to_owned());
    let verified = tokio::task::spawn_blocking(move || {
        let right = match hash.as_deref().map(PasswordHash::new) {
            Some(Ok(hash)) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
            _ => {
                let _as_long = hash_password(&password);
                false
            }
        };
        (right, turn)
    });
    verified.await.map_err(|error| Problem::new(Code::Internal, format!("a login was not checked: {error}")))
}

fn caller(user: &User) -> Caller {
    Caller::new(user.name.clone(), Arc::clone(&user.rights))
}

#[async_trait]
impl Logins for UserLogins {
    async fn login(&self, credentials: Credentials, from: IpAddr) -> Result<Caller, Refused> {
        match credentials {
            Credentials::Password { user, password } => Ok(self.by_password(user, &password, from).await?),
            Credentials::Token(token) => self.by_token(&token, from).await,
            Credentials::Certificate { common_name } => self.by_certificate(&common_name).await,
        }
    }

    fn signed(&self, user: &str, bytes: &[u8], signature: &[u8]) -> Result<Caller, Problem> {
        let known = self
            .user(user)
            .filter(|user| user.key.as_ref().is_some_and(|key| maxhost_pki::verify(key, bytes, signature)));
        known.as_ref().map(caller).ok_or_else(|| {
            Problem::new(Code::Unauthenticated, "there is no such user with a key, or the signature is not of that key")
                .remedy("sign what docs/messages.md says with the key that `maxhost user key` has made for the user")
        })
    }

    fn has_key(&self, user: &str) -> bool {
        self.user(user).is_some_and(|user| user.key.is_some())
    }
}

/// Lets in whoever has a certificate of the authority that the host trusts; he may do everything. For hosts without a file of
/// users.
pub struct CertificateLogins;

#[async_trait]
impl Logins for CertificateLogins {
    async fn login(&self, credentials: Credentials, _: IpAddr) -> Result<Caller, Refused> {
        match credentials {
            Credentials::Certificate { common_name } => Ok(Caller::new(common_name, Arc::new(Rights::all()))),
            Credentials::Password { .. } | Credentials::Token(_) => {
                let text = "this host has no users with passwords or tokens (rpc.users)";
                Err(Problem::new(Code::Unauthenticated, text).into())
            }
        }
    }

    fn signed(&self, _: &str, _: &[u8], _: &[u8]) -> Result<Caller, Problem> {
        Err(Problem::new(Code::Unauthenticated, "this host has no users with keys (rpc.users)"))
    }

    fn has_key(&self, _: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wrong_logins::{FIRST_DELAY, FORGOTTEN, FREE_BY_ADDRESS, FREE_BY_NAME};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn logins(password: &str) -> UserLogins {
        logins_by_a_clock(password).0
    }

    /// Time stands still but for what a test adds to it.
    fn standing_still() -> (Clock, Arc<Mutex<Instant>>) {
        let begun = Instant::now();
        let time = Arc::new(Mutex::new(begun));
        let (told, of_wall) = (Arc::clone(&time), Arc::clone(&time));
        let wall = move || Timestamp::UNIX_EPOCH + (*of_wall.lock() - begun);
        (Clock { now: Box::new(move || *told.lock()), wall: Box::new(wall) }, time)
    }

    fn logins_by_a_clock(password: &str) -> (UserLogins, Arc<Mutex<Instant>>) {
        let (clock, time) = standing_still();
        let hash = hash_password(password).unwrap();
        let text = format!(
            "[[user]]\nname = \"ann\"\npassword = \"{hash}\"\npermissions = [\"StartFlow.iou/*\"]\nidentities = [\"*\"]\n"
        );
        (UserLogins::with_clock(Users::parse(&text).unwrap(), clock), time)
    }

    async fn try_login(logins: &UserLogins, user: &str, password: &str) -> Result<Caller, Code> {
        let password = zeroize::Zeroizing::new(password.to_owned());
        let credentials = Credentials::Password { user: user.to_owned(), password };
        logins.login(credentials, HERE).await.map_err(|refused| refused.problem.code)
    }

    #[tokio::test]
    async fn wrong_logins_wait_longer_and_longer_and_right_ones_are_remembered() {
        let (logins, clock) = logins_by_a_clock("secret");
        assert_eq!(try_login(&logins, "ann", "secret").await.unwrap().user, "ann");
        for _ in 0..3 {
            assert_eq!(try_login(&logins, "ann", "wrong").await.unwrap_err(), Code::Unauthenticated);
        }
        assert_eq!(try_login(&logins, "ann", "wrong").await.unwrap_err(), Code::LoginDelayed);
        assert!(try_login(&logins, "ann", "secret").await.is_ok(), "who is known is not held up by others");
        *clock.lock() += FIRST_DELAY;
        assert_eq!(try_login(&logins, "ann", "wrong").await.unwrap_err(), Code::Unauthenticated);
        *clock.lock() += FIRST_DELAY;
        assert_eq!(try_login(&logins, "ann", "wrong").await.unwrap_err(), Code::LoginDelayed, "the delay doubles");
        *clock.lock() += FORGOTTEN;
        assert_eq!(try_login(&logins, "ann", "wrong").await.unwrap_err(), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn an_address_that_tries_many_names_is_held_up_too() {
        let logins = logins("secret");
        for name in 0..10 {
            assert_eq!(try_login(&logins, &format!("u{name}"), "x").await.unwrap_err(), Code::Unauthenticated);
        }
        assert_eq!(try_login(&logins, "u10", "x").await.unwrap_err(), Code::LoginDelayed);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_wrong_logins_at_once_only_those_that_are_free_are_looked_at() {
        let logins = logins("secret");
        let tries = (0..40).map(|number| {
            let logins = &logins;
            async move { try_login(logins, "ann", &format!("guess {number}")).await.unwrap_err() }
        });
        let answers = futures::future::join_all(tries).await;
        let looked_at = answers.iter().filter(|code| **code == Code::Unauthenticated).count();
        assert_eq!(looked_at, FREE_BY_NAME as usize, "{answers:?}");
        assert!(answers.iter().all(|code| [Code::Unauthenticated, Code::LoginDelayed].contains(code)), "{answers:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_right_logins_at_once_are_all_let_in() {
        let logins = logins("secret");
        let tries = (0..40).map(|_| try_login(&logins, "ann", "secret"));
        for answer in futures::future::join_all(tries).await {
            assert_eq!(answer.unwrap().user, "ann");
        }
    }

    #[tokio::test]
    async fn a_right_login_does_not_free_those_who_guess_from_the_same_address() {
        let logins = logins("secret");
        for name in 0..9 {
            assert_eq!(try_login(&logins, &format!("u{name}"), "x").await.unwrap_err(), Code::Unauthenticated);
        }
        assert!(try_login(&logins, "ann", "secret").await.is_ok());
        assert_eq!(try_login(&logins, "u9", "x").await.unwrap_err(), Code::Unauthenticated);
        assert_eq!(try_login(&logins, "u10", "x").await.unwrap_err(), Code::LoginDelayed);
    }

    #[tokio::test]
    async fn a_change_of_the_users_counts_at_once() {
        let logins = logins("secret");
        assert!(try_login(&logins, "ann", "secret").await.is_ok());
        logins.replace(Users::default());
        assert_eq!(try_login(&logins, "ann", "secret").await.unwrap_err(), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn an_empty_password_is_looked_at_for_nobody() {
        use argon2::password_hash::{PasswordHasher, SaltString};
        // `maxhost user` makes no such hash. Who has it all the same shows whether the password was looked at.
        let salt = SaltString::encode_b64(&[7; 16]).unwrap();
        let hash = crate::users::hasher().unwrap().hash_password(b"", &salt).unwrap();
        let text =
            format!("[[user]]\nname = \"ann\"\npassword = \"{hash}\"\npermissions = [\"ALL\"]\nidentities = [\"*\"]\n");
        let logins = UserLogins::new(Users::parse(&text).unwrap());
        for name in ["ann", "bob"] {
            assert_eq!(try_login(&logins, name, "").await.unwrap_err(), Code::Unauthenticated, "{name}");
        }
    }

    /// Tokens of Ann that expire after an hour: a plain one, one with fewer rights, and one that was revoked; and one of a
    /// user who is gone.
    fn tokens() -> ([TokenText; 4], Users) {
        let tokens = [(); 4].map(|()| TokenText::random());
        let mut text =
            "[[user]]\nname = \"ann\"\npermissions = [\"StartFlow.iou/*\", \"Status\"]\nidentities = [\"O=Alice*\"]\n"
                .to_owned();
        let more = [
            ("ann", ""),
            ("ann", "permissions = [\"StartFlow.*/issue\"]\n"),
            ("ann", "revoked = \"1970-01-01T00:00:01Z\"\n"),
            ("gone", ""),
        ];
        for (token, (user, more)) in tokens.iter().zip(more) {
            text.push_str(&format!(
                "[[token]]\nid = \"{}\"\nuser = \"{user}\"\nhash = \"{}\"\ncreated = \"1970-01-01T00:00:00Z\"\n\
                 expires = \"1970-01-01T01:00:00Z\"\n{more}",
                token.id(),
                token.hash_text()
            ));
        }
        (tokens, Users::parse(&text).unwrap())
    }

    async fn try_token(logins: &UserLogins, token: &TokenText) -> Result<Caller, (Code, Option<String>)> {
        let refused = |refused: Refused| (refused.problem.code, refused.user);
        logins.login(Credentials::Token(token.clone()), HERE).await.map_err(refused)
    }

    /// Another secret under the same id.
    fn forged(token: &TokenText) -> TokenText {
        let other = TokenText::random();
        TokenText::parse(&token.expose().replace(&token.expose()[21..], &other.expose()[21..])).unwrap()
    }

    #[tokio::test]
    async fn a_token_counts_until_its_time_is_over_or_it_is_revoked() {
        let ([plain, narrow, revoked, orphan], users) = tokens();
        let (clock, time) = standing_still();
        let logins = UserLogins::with_clock(users, clock);
        let ann = Some("ann".to_owned());
        let caller = try_token(&logins, &plain).await.unwrap();
        assert_eq!((caller.user.as_str(), caller.rights.are_all(), caller.rights.see("O=Alice")), ("ann", false, true));
        let of = |flow: &'static str| maxhost_flows::Subject {
            flow: Some(flow),
            identity: Some("O=Alice"),
            ..Default::default()
        };
        let may = |caller: &Caller, flow| caller.rights.allow("ann", maxhost_flows::Action::StartFlow, &of(flow));
        assert!(may(&caller, "iou/issue") && may(&caller, "iou/settle") && !may(&caller, "cash/issue"));
        let caller = try_token(&logins, &narrow).await.unwrap();
        assert!(may(&caller, "iou/issue") && !may(&caller, "iou/settle") && !may(&caller, "cash/issue"));
        assert_eq!(try_token(&logins, &revoked).await.unwrap_err(), (Code::TokenRevoked, ann.clone()));
        assert_eq!(try_token(&logins, &orphan).await.unwrap_err(), (Code::TokenRevoked, Some("gone".to_owned())));
        // Whoever has not all of it is not told what there is.
        for token in [&plain, &revoked, &orphan] {
            assert_eq!(try_token(&logins, &forged(token)).await.unwrap_err(), (Code::TokenUnknown, None));
        }
        assert_eq!(try_token(&logins, &TokenText::random()).await.unwrap_err(), (Code::TokenUnknown, None));
        *time.lock() += Duration::from_secs(3_599);
        assert!(try_token(&logins, &plain).await.is_ok());
        *time.lock() += Duration::from_secs(1);
        assert_eq!(try_token(&logins, &plain).await.unwrap_err(), (Code::TokenExpired, ann));
        assert_eq!(try_token(&logins, &forged(&plain)).await.unwrap_err(), (Code::TokenUnknown, None));
        logins.replace(Users::default());
        assert_eq!(try_token(&logins, &plain).await.unwrap_err(), (Code::TokenUnknown, None), "at once");
    }

    #[tokio::test]
    async fn whoever_guesses_at_tokens_is_held_up_and_nobody_who_has_one() {
        let ([plain, _, revoked, _], users) = tokens();
        let (clock, time) = standing_still();
        let logins = UserLogins::with_clock(users, clock);
        for _ in 0..FREE_BY_ADDRESS {
            assert_eq!(try_token(&logins, &forged(&plain)).await.unwrap_err().0, Code::TokenUnknown);
        }
        for wrong in [forged(&plain), TokenText::random()] {
            assert_eq!(try_token(&logins, &wrong).await.unwrap_err(), (Code::LoginDelayed, None));
        }
        assert_eq!(try_login(&logins, "ann", "x").await.unwrap_err(), Code::LoginDelayed, "one count for both");
        assert!(try_token(&logins, &plain).await.is_ok());
        // To be told so again and again is no guessing.
        for _ in 0..20 {
            assert_eq!(try_token(&logins, &revoked).await.unwrap_err().0, Code::TokenRevoked);
        }
        *time.lock() += FIRST_DELAY;
        assert_eq!(try_token(&logins, &forged(&plain)).await.unwrap_err().0, Code::TokenUnknown);
        assert_eq!(try_token(&logins, &forged(&plain)).await.unwrap_err().0, Code::LoginDelayed);
    }
}
