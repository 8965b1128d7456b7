//! Every error code a user can meet, with its class and its remedy. `docs/errors.md` is held against this table by a
//! test.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of answer an error is: decides the exit code of the command line and the gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It ran and failed. Exit 1.
    Failed,
    /// The command was not understood. Exit 2.
    Usage,
    /// No such thing. Exit 3.
    NotFound,
    /// Bad input, a limit, no permission. Exit 4.
    Refused,
    /// Not now: try again. Exit 5.
    Unavailable,
}

impl Class {
    /// The exit code of the command line.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::NotFound => 3,
            Class::Refused => 4,
            Class::Unavailable => 5,
        }
    }
}

macro_rules! codes {
    ($($variant:ident = $word:literal, $class:ident, $remedy:literal;)*) => {
        /// A stable word for an error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code { $(
            #[doc = $remedy]
            #[serde(rename = $word)]
            $variant,
        )* }

        impl Code {
            /// All codes, in the order of this file.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $word,)* }
            }

            /// What kind of answer it is.
            #[must_use]
            pub fn class(self) -> Class {
                match self { $(Code::$variant => Class::$class,)* }
            }

            /// What to do, in general.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Code::$variant => $remedy,)* }
            }

            /// The code of this word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Code> {
                match word { $($word => Some(Code::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    // Identities and the network
    IdentityNotFound = "identity-not-found", NotFound, "list what the host has with `maxhost identity list`";
    IdentityAmbiguous = "identity-ambiguous", Refused, "give more of the name, so that one identity fits";
    IdentityQuarantined = "identity-quarantined", Unavailable, "mend what `maxhost identity show` gives as the reason; the host takes the identity back by itself";
    IdentityUnclean = "identity-unclean", Refused, "find out from the logs why its hosts ended, mend that, and run `maxhost identity retry NAME`";
    IdentityUnusableHere = "identity-unusable-here", Unavailable, "ask another host of the cluster, or mend on this one what the message names";
    IdentityDraining = "identity-draining", Unavailable, "the identity is being removed or moved; try again when it is hosted again";
    IdentityPinned = "identity-pinned", Unavailable, "start one of the hosts that the manifest names in `placement.only`, or name others there; `maxhost identity where NAME` says which are away";
    IdentityExists = "identity-exists", Refused, "choose another name, or use the identity that is there";
    NameInvalid = "name-invalid", Refused, "write an X.500 name such as `O=Alice, L=London, C=GB`";
    PartyNotFound = "party-not-found", NotFound, "list the network's parties with `maxhost network parties`";
    CertificateInvalid = "certificate-invalid", Refused, "issue the identity again, or restore its certificates from a backup";
    KeyUnreadable = "key-unreadable", Refused, "restore the key file from a backup, owned by the host's user with mode 0600";
    PassphraseWrong = "passphrase-wrong", Refused, "give the passphrase that the keys were sealed with";
    PassphraseMissing = "passphrase-missing", Refused, "name a file in `keys.passphrase_file` or set MAXHOST_PASSPHRASE";
    NetworkInvalid = "network-invalid", Refused, "restore the network folder from a backup, or copy it from a member of the network";
    NetworkBusy = "network-busy", Unavailable, "another command is changing this network: try again when it has ended";
    KeysInvalid = "keys-invalid", Refused, "restore the keys folder from a backup";
    // CorDapps
    CordappNotFound = "cordapp-not-found", NotFound, "install it with `maxhost cordapp install FILE`, or correct the name in the manifest";
    CordappAmbiguous = "cordapp-ambiguous", Refused, "name one of them as name@version or name#sha256:...";
    ComponentInvalid = "component-invalid", Refused, "compile the CorDapp with `maxhost cordapp build`";
    ComponentWrongWorld = "component-wrong-world", Refused, "export what the world maxhost:cordapp/flows asks for, or maxhost:cordapp/contract for a contract";
    ComponentForbiddenImport = "component-forbidden-import", Refused, "remove the import: a CorDapp may use maxhost:cordapp and the plain parts of WASI 0.2 only";
    ComponentForbiddenFeature = "component-forbidden-feature", Refused, "build the contract with `maxhost cordapp build`, which keeps to profile 1 of WebAssembly; a newer compiler may have to be told to leave the feature out";
    ComponentSignatures = "component-signatures", Refused, "sign the component again with `maxhost cordapp build --sign KEYFILE`, and change nothing afterwards";
    ComponentDescribeFailed = "component-describe-failed", Refused, "make `describe` return names, versions and schemas that follow the rules in docs/cordapps.md";
    ComponentTooLarge = "component-too-large", Refused, "make the CorDapp need less: the message names the limit";
    SandboxUnavailable = "sandbox-unavailable", Unavailable, "let the process reserve more address space (ulimit -v) and mappings (vm.max_map_count), or allow fewer flows at once";
    CordappExists = "cordapp-exists", Refused, "raise the version, or replace the installed one with `maxhost cordapp install --replace`";
    CordappBuildFailed = "cordapp-build-failed", Failed, "read the compiler's message above";
    CordappIncompatible = "cordapp-incompatible", Refused, "mend what the message lists, or publish it as another contract or CorDapp";
    AttachmentNotFound = "attachment-not-found", NotFound, "import the file with `maxhost attachment import`, or ask for another id";
    AttachmentTooLarge = "attachment-too-large", Refused, "attach less: the network parameters limit a transaction with all that it needs";
    AttachmentsFull = "attachments-full", Refused, "import no more than flows need; the operator can raise the limit that the message names";
    CordappConflict = "cordapp-conflict", Refused, "let only one CorDapp of an identity answer a protocol";
    // Flows
    FlowNotFound = "flow-not-found", NotFound, "list flows with `maxhost flow list`; a finished flow is forgotten after the retention time";
    FlowTypeNotFound = "flow-type-not-found", NotFound, "list what can be started with `maxhost flow types --identity NAME`";
    FlowTypeAmbiguous = "flow-type-ambiguous", Refused, "write cordapp/flow";
    FlowNotStartable = "flow-not-startable", Refused, "only flows marked startable can be started by RPC; this one answers a peer";
    FlowIdInvalid = "flow-id-invalid", Refused, "give the UUID that `maxhost flow start` printed";
    ArgumentsInvalid = "arguments-invalid", Refused, "see `maxhost flow types --identity NAME` for what the flow takes";
    ClientIdInvalid = "client-id-invalid", Refused, "use 1 to 512 characters, and no NUL among them";
    ClientIdForeign = "client-id-foreign", Refused, "use another client id: this one belongs to another user";
    ClientIdNotFound = "client-id-not-found", NotFound, "it was never used, was removed, or its time to live is over";
    ClientIdRunning = "client-id-running", Refused, "wait until the flow has ended, or kill it first";
    FlowFailed = "flow-failed", Failed, "see the flow's error";
    FlowKilled = "flow-killed", Failed, "the flow was killed by an operator";
    FlowHospital = "flow-hospital", Failed, "see the reason in `maxhost flow show`; kill the flow if it cannot be mended";
    MessageTooLarge = "message-too-large", Refused, "send less at once: the network parameters limit the size of a message";
    JournalCorrupt = "journal-corrupt", Failed, "restore the database from a backup, or kill the flow";
    CursorInvalid = "cursor-invalid", Refused, "give the cursor that was sent last, for the same question, or begin again without one";
    // The ledger
    QueryInvalid = "query-invalid", Refused, "correct the expression at the position that `details` names; docs/behaviour.md 12.5 has the language";
    TransactionNotFound = "transaction-not-found", NotFound, "list what the identity knows with `maxhost ledger list --identity NAME`";
    NotaryNotHere = "notary-not-here", NotFound, "name an identity whose manifest says `notary = \"validating\"` or `\"non-validating\"`";
    LedgerRefused = "ledger-refused", Refused, "`details.rule` names the rule of docs/behaviour.md that refuses it";
    // Configuration and the host
    PermissionDenied = "permission-denied", Refused, "ask the operator of the host for the permission that the message names";
    Unauthenticated = "unauthenticated", Refused, "log in: MAXHOST_USER and MAXHOST_PASSWORD, --user, --token-file, or a certificate with --cert and --key";
    LoginDelayed = "login-delayed", Unavailable, "wait for the time that the message names; the operator can give a new password with `maxhost user passwd`";
    TokenUnknown = "token-unknown", Refused, "ask the operator of the host for a token: `maxhost token new` makes one";
    TokenExpired = "token-expired", Refused, "ask the operator of the host for another token: `maxhost token new` makes one";
    TokenRevoked = "token-revoked", Refused, "ask the operator of the host why, or for another token: `maxhost token new` makes one";
    TokenNotFound = "token-not-found", NotFound, "list the tokens with `maxhost token list`";
    TokenInvalid = "token-invalid", Refused, "correct what the message names; docs/access.md says what tokens are";
    UserNotFound = "user-not-found", NotFound, "list the users with `maxhost user list`";
    UserExists = "user-exists", Refused, "choose another name, or remove the user first";
    UserInvalid = "user-invalid", Refused, "correct what the message names; docs/access.md says what names, passwords and permissions are";
    ConfigInvalid = "config-invalid", Refused, "correct the file at the line given";
    ConfigNotFound = "config-not-found", NotFound, "run `maxhost init DIR` first, or name the file with --config";
    ManifestInvalid = "manifest-invalid", Refused, "correct the manifest at the line given; the host picks it up by itself";
    DirectoryInUse = "directory-in-use", Refused, "choose an empty folder, or remove what is there";
    DirectoryUnwritable = "directory-unwritable", Refused, "let the host's user write there";
    DataLocked = "data-locked", Refused, "stop the other host first: one data folder serves one host at a time";
    PortInUse = "port-in-use", Refused, "stop what uses the port, or set another in rpc.listen (port 0 picks a free one)";
    ListenRefused = "listen-refused", Refused, "listen on a loopback address, or guard the port: [rpc.tls] with [rpc.users] or client_ca";
    StoreFailed = "store-failed", Unavailable, "see the host's log for the database's message; the work is retried";
    DiskFull = "disk-full", Unavailable, "free space on the disk of the data folder; waiting work goes on by itself";
    StoreIncompatible = "store-incompatible", Refused, "run the version of maxhost that wrote this data folder, or a newer one";
    StoreUnreachable = "store-unreachable", Unavailable, "start the database server, or correct the address in store.url";
    StoreDenied = "store-denied", Refused, "give the host a role, a password and a database that the server accepts: docs/operating.md says which rights the role needs";
    StoreMayLose = "store-may-lose", Refused, "set fsync and full_page_writes on and name a synchronous standby in synchronous_standby_names; or accept the loss with store.allow_loss = true";
    ClockOff = "clock-off", Refused, "set the clocks of the host and of the database server right, by NTP for instance; store.max_clock_offset says what is allowed";
    DatabaseUnknown = "database-unknown", Refused, "name the database in [store.databases] of every host's maxhost.toml, and start those hosts again";
    DatabaseUnfit = "database-unfit", Refused, "correct store.url and [store.databases]; docs/operating.md says which databases go together";
    IdentityMoved = "identity-moved", Unavailable, "wait until `maxhost db move` has ended; if it was broken off, run it again";
    InstallationUnsound = "installation-unsound", Failed, "do what the checks say of which `ok` is false";
    StoreWentBack = "store-went-back", Failed, "find out which copy of the database is the right one, and start the host again on it";
    OwnershipRefused = "ownership-refused", Refused, "give the host the ownership service that its database is used with, and credentials that it accepts";
    BrokerUnavailable = "broker-unavailable", Unavailable, "start the broker, or mend what keeps the host from it; what waits goes on by itself";
    BrokerRefused = "broker-refused", Refused, "change what the message names: the host's credentials, or a setting of the broker that docs/cluster.md explains";
    FileNotFound = "file-not-found", NotFound, "correct the name: there is no such file or folder";
    FileUnreadable = "file-unreadable", Refused, "check what the file is and that you may read it";
    HostUnreachable = "host-unreachable", Unavailable, "start it with `maxhost run`, or name it with --endpoint";
    HostNotFound = "host-not-found", NotFound, "list the hosts of the cluster with `maxhost host list`";
    HostStopping = "host-stopping", Unavailable, "try again when the host is up";
    Overloaded = "overloaded", Unavailable, "try again later, or raise the limit that the message names";
    Timeout = "timeout", Unavailable, "try again, or wait longer with --timeout";
    RequestInvalid = "request-invalid", Refused, "correct the field that the message names";
    RequestExpired = "request-expired", Refused, "set the clock of the client right and send the request anew; a start is safe to repeat under its client id";
    OutputFailed = "output-failed", Failed, "send standard output to a place that can be written";
    Usage = "usage", Usage, "see --help";
    Internal = "internal", Failed, "this is a defect of maxhost: please report it with the log lines around it";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_kebab_case_and_parse_back() {
        for &code in Code::ALL {
            let word = code.as_str();
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{word}");
            assert_eq!(Code::parse(word), Some(code));
        }
    }
}
