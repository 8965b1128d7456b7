//! What a contract may use: a matter of the network, because it decides verdicts (behaviour.md 10.20).

/// The most contracts of which the states of one transaction may be. Each has the limits below for itself, so this bounds what a
/// transaction costs whoever judges it: half a minute.
pub const MAX_CONTRACTS: usize = 64;

/// The bounds of one contract over one transaction. All hosts of a network have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContractLimits {
    /// Fuel for `verify`, set after the instance was made. Each instruction and each byte of the transaction has its price.
    pub fuel: u64,
    /// Linear memory, bytes.
    pub memory: u64,
}

impl ContractLimits {
    /// Those of profile 1: 500 million units of fuel, which is about half a second, and 64 MiB.
    pub const V1: ContractLimits = ContractLimits { fuel: 500_000_000, memory: 64 << 20 };
}

impl Default for ContractLimits {
    fn default() -> ContractLimits {
        ContractLimits::V1
    }
}
