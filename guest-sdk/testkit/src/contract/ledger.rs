//! A ledger for tests: parties, a notary, and the code that judges.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use maxhost_contract::{
    CodeDescription, ContractCode, ContractId, Hash, LinearId, Party, PublicKey, RawTransaction, Rejection,
};

use super::draft::Draft;
use super::judge::{Answer, Judge};
use crate::component::{component, this_crate};

/// What stands before the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What judges natively.
pub(super) type Verify = fn(&ContractId, &[u8]) -> Result<(), Rejection>;

/// A ledger of one CorDapp's contracts. Keys, hashes and ids are made up: contracts only compare them.
pub struct TestLedger {
    inner: Arc<Inner>,
    made: u64,
}

pub(super) struct Inner {
    pub(super) publisher: PublicKey,
    pub(super) notary: Party,
    pub(super) code: CodeDescription,
    verify: Verify,
    judge: Option<Mutex<Judge>>,
    transactions: AtomicU64,
}

impl TestLedger {
    /// A ledger that judges natively and in the component of the crate under test, which is built once in a test process.
    ///
    /// # Panics
    /// If there is no host program, or the crate does not build: the test cannot go on.
    #[must_use]
    pub fn of<C: ContractCode>() -> TestLedger {
        let built = this_crate().and_then(|folder| component(&folder)).and_then(|file| Judge::start(&file));
        match built {
            Ok(judge) => TestLedger::with::<C>(Some(Mutex::new(judge))),
            Err(error) => fail(&format!("the contract cannot be asked in its component: {error}")),
        }
    }

    /// A ledger that judges natively only.
    #[must_use]
    pub fn native<C: ContractCode>() -> TestLedger {
        TestLedger::with::<C>(None)
    }

    fn with<C: ContractCode>(judge: Option<Mutex<Judge>>) -> TestLedger {
        let inner = Inner {
            publisher: key(u64::MAX),
            notary: Party { name: "O=Notary, L=Zurich, C=CH".to_owned(), owning_key: key(u64::MAX - 1) },
            code: C::description(),
            verify: C::verify,
            judge,
            transactions: AtomicU64::new(0),
        };
        TestLedger { inner: Arc::new(inner), made: 0 }
    }

    /// A new party: `O=NAME, L=London, C=GB`.
    pub fn party(&mut self, name: &str) -> Party {
        self.made += 1;
        Party { name: format!("O={name}, L=London, C=GB"), owning_key: key(self.made) }
    }

    /// New parties.
    pub fn parties<const N: usize>(&mut self, names: [&str; N]) -> [Party; N] {
        names.map(|name| self.party(name))
    }

    /// A new linear id.
    pub fn linear_id(&mut self) -> LinearId {
        self.made += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.made.to_be_bytes());
        LinearId::from_random(bytes)
    }

    /// The notary of all transactions.
    #[must_use]
    pub fn notary(&self) -> &Party {
        &self.inner.notary
    }

    /// An empty transaction.
    #[must_use]
    pub fn draft(&self) -> Draft {
        Draft::new(Arc::clone(&self.inner))
    }
}

impl Inner {
    /// A new id of a transaction.
    pub(super) fn next_id(&self) -> Hash {
        hash(self.transactions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn contract(&self, name: &str) -> ContractId {
        ContractId { publisher: Some(self.publisher.clone()), name: name.to_owned() }
    }

    /// Asks every contract of inputs and outputs that is in the code, in the order of their names; the first that objects
    /// decides.
    pub(super) fn judge(&self, transaction: &RawTransaction) -> Judged {
        if let Some(rejection) = broken_structure(transaction) {
            return Judged { rejection: Some(rejection), ..Judged::default() };
        }
        let bytes = maxhost_contract::encode(transaction)
            .unwrap_or_else(|error| fail(&format!("the transaction cannot be written: {error}")));
        let inputs = transaction.inputs.iter().map(|input| &input.state);
        let mut names: Vec<&str> =
            inputs.chain(&transaction.outputs).map(|state| state.contract.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut judged = Judged::default();
        for name in names {
            if !self.code.contracts.iter().any(|contract| contract.name == name) {
                continue;
            }
            judged.asked += 1;
            let contract = self.contract(name);
            let native = self.natively(&contract, &bytes);
            if let Some(judge) = &self.judge {
                let answer = judge.lock().unwrap_or_else(PoisonError::into_inner).ask(&contract, &bytes);
                let answer = answer.unwrap_or_else(|error| fail(&format!("the component cannot be asked: {error}")));
                agree(name, &native, &answer);
                judged.fuel_share = judged.fuel_share.max(answer.fuel_share());
            }
            if let Err(rejection) = native {
                judged.rejection = Some(rejection);
                break;
            }
        }
        judged
    }

    /// A panic of a rule is a refusal, as it is in the component.
    fn natively(&self, contract: &ContractId, bytes: &[u8]) -> Result<(), Rejection> {
        catch_unwind(AssertUnwindSafe(|| (self.verify)(contract, bytes)))
            .unwrap_or_else(|_| Err(Rejection::new("trap/panic", "the contract panicked; its text is above")))
    }
}

/// The rules of the ledger that a change of a draft can break: the host refuses such a transaction before it asks any
/// contract.
fn broken_structure(transaction: &RawTransaction) -> Option<Rejection> {
    let inputs = transaction.inputs.iter().map(|input| &input.state.contract);
    let running: Vec<&ContractId> = inputs.chain(transaction.outputs.iter().map(|output| &output.contract)).collect();
    if running.is_empty() {
        return Some("ledger/no-inputs-or-outputs".into());
    }
    if transaction.commands.is_empty() {
        return Some("ledger/command-missing".into());
    }
    if transaction.commands.iter().any(|command| command.signers.is_empty()) {
        return Some("ledger/command-without-signer".into());
    }
    let foreign = transaction.commands.iter().any(|command| !running.contains(&&command.command.contract));
    foreign.then(|| "ledger/command-without-contract".into())
}

/// What came out.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) asked: usize,
    pub(super) rejection: Option<Rejection>,
    pub(super) fuel_share: f64,
}

fn agree(name: &str, native: &Result<(), Rejection>, answer: &Answer) {
    let same = match (native, answer.code()) {
        (Ok(()), None) => true,
        (Err(rejection), Some(code)) if rejection.code() == "trap/panic" => code.starts_with("trap/"),
        (Err(rejection), Some(code)) => rejection.code() == code,
        _ => false,
    };
    if !same {
        fail(&format!("the contract {name} says natively {native:?}, and in its component {answer:?}"));
    }
}

/// Ends the test with a text: whoever writes a test reads it.
#[allow(clippy::panic)]
#[track_caller]
pub(super) fn fail(text: &str) -> ! {
    panic!("{text}")
}

fn key(number: u64) -> PublicKey {
    let mut bytes = ED25519.to_vec();
    bytes.extend_from_slice(&hash(number).0);
    PublicKey::from_spki(bytes)
}

/// Made-up bytes that differ in all places: the steps of a linear congruential generator.
fn hash(number: u64) -> Hash {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let mut bytes = [0; 32];
    for byte in &mut bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = state.to_be_bytes()[0];
    }
    Hash(bytes)
}
