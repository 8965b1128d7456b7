//! What judging a transaction costs.

use std::time::{Duration, Instant};

use maxhost_ledger::keys;
use maxhost_ledger::tx::{StateAndRef, StateRef, WireTransaction};
use maxhost_tests::contracts::{Iou, component, iou, key, network, party, state, transaction, verify};

use crate::figures::{Goal, Report, percentile};
use crate::setting::{Outcome, Setting};

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let code = component("iou");
    let input = StateAndRef { state: state(&code, &iou()), reference: StateRef::new(network(), 0) };
    let inputs = std::slice::from_ref(&input);
    let passed_on = Iou { lender: party("Carol", 3), ..iou() };
    let bytes = transaction(inputs, vec![state(&code, &passed_on)], "Transfer", &[1, 3]).encode()?;
    let signers = [key(1), key(3)];
    let turns = if setting.quick { 500 } else { 5_000 };
    let (mut bare, mut signed) = (Vec::with_capacity(turns), Vec::with_capacity(turns));
    for _ in 0..turns {
        let began = Instant::now();
        let wire = WireTransaction::decode(&bytes)?;
        let verification = verify(&wire, inputs);
        let judged = began.elapsed();
        let message = wire.id();
        if !verification.verdict.is_accepted() {
            return Err(format!("refused: {:?}", verification.verdict).into());
        }
        let signatures = signers.each_ref().map(|key| key.sign(message.as_bytes()));
        let began = Instant::now();
        for (key, signature) in signers.iter().zip(&signatures) {
            if !keys::verify(key.public(), message.as_bytes(), signature) {
                return Err("a signature does not verify".into());
            }
        }
        bare.push(micros(judged));
        signed.push(micros(judged + began.elapsed()));
    }
    report.group(
        "judging the transfer of a debt: decoded, checked by the rules, and by its contract in a fresh instance",
    );
    report.add("p50, one thread", percentile(&mut bare, 0.5), "µs", Goal::AtMost(100.0));
    report.add("with both signatures, p50", percentile(&mut signed, 0.5), "µs", Goal::AtMost(250.0));
    let usage = verify(&WireTransaction::decode(&bytes)?, inputs).usage;
    for used in usage {
        let name = format!("fuel of {}", used.contract.name);
        #[allow(clippy::cast_precision_loss)]
        report.add(name, used.fuel as f64, "units", Goal::None);
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
