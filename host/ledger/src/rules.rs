//! Every rule of the ledger that data can break: its stable word, and the section of `docs/behaviour.md` that states it.
//! A test holds that page against this table.

use std::fmt;

macro_rules! rules {
    ($($variant:ident = $word:literal, $section:literal, $about:literal;)*) => {
        /// A rule of the ledger.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule { $(
            #[doc = $about]
            $variant,
        )* }

        impl Rule {
            /// All rules, in the order of this file.
            pub const ALL: &'static [Rule] = &[$(Rule::$variant),*];

            /// The stable word: what programs and people meet.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Rule::$variant => $word,)* }
            }

            /// The section of `docs/behaviour.md` that states the rule.
            #[must_use]
            pub fn section(self) -> &'static str {
                match self { $(Rule::$variant => $section,)* }
            }

            /// The rule of this word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Rule> {
                match word { $($word => Some(Rule::$variant),)* _ => None }
            }
        }
    };
}

rules! {
    // Encoding and hashing
    NotCanonical = "not-canonical", "10.1", "A component is not the deterministic CBOR of what its group holds.";
    ComponentInvalid = "component-malformed", "10.2", "A component is canonical CBOR but not of the type of its group.";
    TooDeep = "nested-too-deep", "10.1", "Data is nested deeper than its bound.";
    TooLarge = "transaction-too-large", "10.8", "A transaction with all it needs reaches the network's limit.";
    GroupEmpty = "group-empty", "10.2", "A component group is present and has no components.";
    GroupDuplicate = "group-duplicate", "10.2", "Two component groups have the same index.";
    GroupIndex = "group-index-invalid", "10.2", "A component group has an index beyond the bound.";
    SaltInvalid = "salt-invalid", "10.3", "The privacy salt is too short, too long, or all zero.";
    HashUnsupported = "hash-unsupported", "10.4", "A hash is of an algorithm that is not in use here.";
    MerkleEmpty = "merkle-empty", "10.4", "A Merkle tree was asked for over nothing.";
    MerkleMismatch = "merkle-mismatch", "10.4", "A partial Merkle tree does not prove what it should.";
    // Header
    HeaderMissing = "header-missing", "10.5", "A transaction has no header component, or more than one.";
    HeaderUnsupported = "header-unsupported", "10.5", "The header names a version, digest or layout that is not in use.";
    NetworkWrong = "network-wrong", "10.5", "The transaction belongs to another network.";
    // Structure
    NothingDone = "no-inputs-or-outputs", "10.6", "A transaction has neither an input nor an output.";
    CommandMissing = "command-missing", "10.6", "A transaction has no command.";
    SignerMissing = "command-without-signer", "10.6", "A command names no signer.";
    SignersMismatch = "signers-mismatch", "10.6", "There are more commands than lists of signers, or fewer.";
    NotaryMissing = "notary-missing", "10.6", "Inputs, references or a time-window need a notary, and none is named.";
    InputDuplicate = "input-duplicate", "10.6", "An input is given twice.";
    ReferenceDuplicate = "reference-duplicate", "10.6", "A reference is given twice.";
    ReferenceIsInput = "reference-is-input", "10.6", "A state is input and reference at once.";
    NotaryDuplicate = "notary-duplicate", "10.6", "More than one notary is named.";
    TimeWindowDuplicate = "time-window-duplicate", "10.6", "More than one time-window is given.";
    ParametersDuplicate = "parameters-duplicate", "10.6", "More than one hash of network parameters is given.";
    ParametersMissing = "parameters-missing", "10.6", "No hash of network parameters is given.";
    AttachmentDuplicate = "attachment-duplicate", "10.6", "An attachment is listed twice.";
    // Values
    TimeWindowInvalid = "time-window-invalid", "10.9", "A time-window is empty, or has neither end.";
    AmountOverflow = "amount-overflow", "10.10", "A sum of amounts is beyond the range of an amount.";
    AmountNegative = "amount-negative", "10.10", "An amount would be below zero.";
    AmountInexact = "amount-inexact", "10.10", "A decimal has more digits than the token allows.";
    TokenMismatch = "token-mismatch", "10.10", "Amounts of different tokens were put together.";
    ValueInvalid = "value-invalid", "10.10", "A name, reference or number is beyond its bound.";
    // Keys and signatures
    KeyInvalid = "key-invalid", "10.11", "A public key is none of a scheme in use, or breaks the rules of its scheme.";
    CompositeInvalid = "composite-key-invalid", "10.12", "A composite key breaks a rule of composite keys.";
    SignatureInvalid = "signature-invalid", "10.13", "A signature does not verify.";
    SignatureForeign = "signature-not-of-transaction", "10.13", "A batch signature does not cover the transaction.";
    SignatureMissing = "signature-missing", "10.13", "A required key has not signed.";
    SchemeMismatch = "signature-scheme-mismatch", "10.13", "The metadata name another scheme than that of the key.";
    SignaturesTooMany = "too-many-signatures", "10.13", "A transaction has more signatures than are checked.";
    NothingSigned = "nothing-signed", "10.13", "There is no signature, or nothing to sign.";
    // States, encumbrance, constraints
    NotaryMismatch = "notary-mismatch", "10.7", "Inputs, references or outputs name another notary than the transaction.";
    NotaryUntrusted = "notary-untrusted", "10.7", "The notary is none of the network's.";
    ParametersUnknown = "parameters-unknown", "10.7", "The network parameters that are named are not known.";
    ParametersOrder = "parameters-older-than-input", "10.7", "The parameters are older than those of an input.";
    StateUnknown = "state-unknown", "10.7", "An input or a reference could not be resolved.";
    VersionDowngrade = "state-downgraded", "10.7", "An output was made by older code than an input of its contract.";
    CodeVersionWrong = "code-version-mismatch", "10.7", "An output names another version than that of the code it comes with.";
    CommandForeign = "command-without-contract", "10.7", "A command speaks to a contract of which no state takes part.";
    EncumbranceInputMissing = "encumbrance-input-missing", "10.14", "An encumbered input lacks the input that encumbers it.";
    EncumbranceOutputMissing = "encumbrance-output-missing", "10.14", "An output is encumbered by itself or by none that is there.";
    EncumbranceDuplicate = "encumbrance-duplicate", "10.14", "One output encumbers two others.";
    EncumbranceNotCyclic = "encumbrance-not-cyclic", "10.14", "Encumbered and encumbering outputs are not the same.";
    EncumbranceNotary = "encumbrance-notary-mismatch", "10.14", "Outputs that encumber each other name different notaries.";
    AttachmentMissing = "contract-attachment-missing", "10.15", "A contract in use has no attachment.";
    AttachmentInvalid = "attachment-malformed", "10.15", "An attachment is no WebAssembly, or its signatures are not where they belong.";
    AttachmentTampered = "attachment-tampered", "10.22", "What came for an attachment has another id.";
    AttachmentUntrusted = "attachment-untrusted", "10.22", "Contract code came from a peer, and nothing that is installed here vouches for it.";
    AttachmentConflict = "contract-attachment-conflict", "10.15", "A contract in use has more than one attachment.";
    ConstraintUnsatisfied = "constraint-unsatisfied", "10.15", "The attachment does not satisfy a state's constraint.";
    ConstraintInvalid = "constraint-invalid", "10.15", "A constraint is a placeholder, or larger than allowed.";
    ConstraintTransition = "constraint-transition-refused", "10.16", "An output's constraint may not follow that of an input.";
    ContractsTooMany = "too-many-contracts", "10.15", "The states of a transaction are of more contracts than one may have.";
    ContractUnsigned = "contract-unsigned", "10.15", "A contract without a publisher is used outside of a development network.";
    StateTypeUnknown = "contract-state-type-unknown", "10.20", "A contract does not know the type of a state under it.";
    SchemaUnknown = "contract-schema-unknown", "10.20", "A state names another schema than its contract has for that version.";
    ContractRejected = "contract-rejected", "10.20", "A contract does not accept the transaction.";
    ContractFuel = "contract-out-of-fuel", "10.20", "A contract computes more than the network allows.";
    ContractMemory = "contract-over-memory", "10.20", "A contract asks for more memory than the network allows.";
    // The back-chain
    BackChainTampered = "back-chain-tampered", "10.21", "Another transaction was given in place of one that a transaction comes from.";
    ParametersUntrusted = "parameters-untrusted", "10.23", "What came for network parameters was not made by the operator of the network.";
    ParametersTampered = "parameters-tampered", "10.23", "What came for network parameters has another hash.";
    // Notary change, tear-offs, finality
    NotaryChangeInvalid = "notary-change-invalid", "10.17", "A change of notary breaks a rule of its own.";
    NotaryUnchanged = "notary-unchanged", "10.17", "A change of notary is to the notary that keeps the states already.";
    StateConsumed = "state-consumed", "10.17", "A state whose notary should change is consumed already.";
    NotaryChangeRefused = "notary-change-refused", "10.17", "A participant does not sign a change of notary.";
    FilteredInvalid = "tear-off-invalid", "10.18", "A tear-off does not belong to the transaction that it names.";
    NotVisible = "component-not-visible", "10.18", "A component that must be shown is hidden.";
    BuilderInvalid = "builder-refused", "10.19", "A call of the builder does not fit what it holds already.";
    // Notary
    TooManyStates = "too-many-states", "11.2", "A request names as many states as the notary takes at once, or more.";
    NotaryOther = "notary-other", "11.2", "The request is for another notary.";
    RequestSignatureInvalid = "request-signature-invalid", "11.2", "The caller did not sign this request.";
    // Vault
    QueryInvalid = "query-invalid", "12.5", "An expression, a sort order or an aggregate of a query is wrong.";
    CursorInvalid = "cursor-invalid", "12.7", "A cursor was not made by this query.";
    RecordingInvalid = "recording-refused", "12.1", "A transaction may not be recorded in this way.";
    // Keys of parties that states do not name
    KeyStatementForeign = "key-statement-foreign", "12.10", "A statement about a key was made for another question, party or network.";
    KeyNotProved = "key-not-proved", "12.10", "A statement about a key is not signed by that key and by the party.";
    KeyNotFresh = "key-not-fresh", "12.10", "A key that should be new is known already, or is that of a legal identity.";
    KeyOfAnother = "key-of-another", "12.10", "A key is known to be that of another party.";
    KeyNotOwn = "key-not-own", "12.10", "A key is none of the identity's own.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_kebab_case_and_parse_back() {
        for &rule in Rule::ALL {
            let word = rule.as_str();
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{word}");
            assert_eq!(Rule::parse(word), Some(rule));
        }
    }
}
