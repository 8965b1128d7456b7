//! Randomness of WASI: the flow's own where the guest relies on it, and bytes from the flow's seed elsewhere. Both are the
//! same again on replay.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::refused;
use crate::state::RunState;

/// What `get-random-bytes` gives in one call, and what the host gives in one call. Bytes.
const MAX_RANDOM: u64 = 1 << 20;
const RANDOM_PIECE: u64 = 65_536;

/// What follows from the seed of a run.
pub(super) struct Randomness {
    seed: [u8; 32],
    generator: Option<Box<ChaCha20Rng>>,
}

impl Randomness {
    pub(super) fn new(seed: [u8; 32]) -> Randomness {
        Randomness { seed, generator: None }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.generator().fill_bytes(&mut bytes);
        bytes
    }

    fn generator(&mut self) -> &mut ChaCha20Rng {
        let seed = blake3::derive_key("maxhost 2026 wasi:random/insecure", &self.seed);
        self.generator.get_or_insert_with(|| Box::new(ChaCha20Rng::from_seed(seed)))
    }

    /// Decides the order of the guest's hash maps.
    fn hash_seed(&self) -> (u64, u64) {
        let key = blake3::derive_key("maxhost 2026 wasi:random/insecure-seed", &self.seed);
        let half = |at: usize| key.iter().skip(at).take(8).fold(0, |word, &byte| word << 8 | u64::from(byte));
        (half(0), half(8))
    }
}

impl random::Host for RunState {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        let mut left = checked_length(length)?;
        let mut bytes = Vec::with_capacity(left as usize);
        while left > 0 {
            let piece = left.min(RANDOM_PIECE);
            bytes.extend_from_slice(&self.random(piece as u32)?);
            left -= piece;
        }
        Ok(bytes)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        let bytes = self.random(8)?;
        Ok(bytes.iter().take(8).fold(0, |word, &byte| word << 8 | u64::from(byte)))
    }
}

impl insecure::Host for RunState {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        let length = checked_length(length)?;
        Ok(self.wasi.randomness.bytes(length as usize))
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.wasi.randomness.generator().next_u64())
    }
}

impl insecure_seed::Host for RunState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok(self.wasi.randomness.hash_seed())
    }
}

fn checked_length(length: u64) -> wasmtime::Result<u64> {
    if length > MAX_RANDOM {
        return Err(refused(format!("asks for {length} random bytes at once, at most {MAX_RANDOM} are given")));
    }
    Ok(length)
}
