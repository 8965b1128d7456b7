//! Successors of publishers' keys, as `maxhost network update` puts them into the parameters of a network.

use std::path::Path;

use maxhost_ledger::attachment::SignedCode;
use maxhost_model::{Code, NetworkParameters, Problem, PublicKey};
use maxhost_pki::signing_key_file;

/// What contract code begins with.
const WASM: &[u8] = b"\0asm";

fn wrong(message: String) -> Problem {
    Problem::new(Code::ArgumentsInvalid, message).remedy("look at `maxhost network parameters`")
}

/// Puts the key of a file behind that of another: `OLD=NEW`. What is said already changes nothing.
///
/// # Errors
/// `arguments-invalid` if the old key has another successor, or the new one is in a succession already; a file that cannot be read
/// or names no key.
pub fn succeed(parameters: &mut NetworkParameters, text: &str) -> Result<(), Problem> {
    let Some((old, new)) = text.split_once('=') else {
        return Err(wrong(format!("'{text}' is not OLD=NEW, with a file for each of the keys")));
    };
    let (old, new) = (key_of(Path::new(old))?, key_of(Path::new(new))?);
    put_behind(&mut parameters.publisher_successions, old, new)
}

/// Takes the succession away in which the key of a file is.
///
/// # Errors
/// `arguments-invalid` if it is in none; a file that cannot be read or names no key.
pub fn unsucceed(parameters: &mut NetworkParameters, file: &str) -> Result<(), Problem> {
    let key = key_of(Path::new(file))?;
    let before = parameters.publisher_successions.len();
    parameters.publisher_successions.retain(|succession| !succession.contains(&key));
    match parameters.publisher_successions.len() < before {
        true => Ok(()),
        false => Err(wrong(format!("the key {key} of {file} has no successor and is none"))),
    }
}

fn put_behind(successions: &mut Vec<Vec<PublicKey>>, old: PublicKey, new: PublicKey) -> Result<(), Problem> {
    if old == new {
        return Err(wrong(format!("the key {old} cannot be its own successor")));
    }
    if let Some(succession) = successions.iter_mut().find(|succession| succession.contains(&old)) {
        let at = succession.iter().position(|key| *key == old);
        match at.and_then(|at| succession.get(at + 1)) {
            Some(successor) if *successor == new => return Ok(()),
            Some(successor) => return Err(wrong(format!("the key {old} has a successor already, {successor}"))),
            None => {}
        }
        if succession.contains(&new) {
            return Err(wrong(format!("the key {new} was replaced by {old}, and cannot be its successor")));
        }
    }
    if let Some(first) = successions.iter().find(|succession| succession.contains(&new)).and_then(|found| found.first())
    {
        return Err(wrong(format!("the key {new} is in a succession already, that of the key {first}")));
    }
    match successions.iter_mut().find(|succession| succession.contains(&old)) {
        Some(succession) => succession.push(new),
        None => successions.push(vec![old, new]),
    }
    Ok(())
}

/// The key of a file: PEM, or contract code with the signature of one key.
fn key_of(file: &Path) -> Result<PublicKey, Problem> {
    let bytes = super::cordapp::read(file)?;
    if !bytes.starts_with(WASM) {
        return Ok(signing_key_file::read_public(file)?);
    }
    let signed = SignedCode::read(&bytes).map_err(|refused| {
        Problem::new(Code::ComponentSignatures, refused.to_string()).detail("file", file.display().to_string())
    })?;
    let mut signers = signed.signers.into_iter();
    match (signers.next(), signers.next()) {
        (Some(key), None) => Ok(key),
        (first, _) => {
            let how_many = if first.is_none() { "nobody has" } else { "several keys have" };
            let message = format!("{}: {how_many} signed it, so it does not say which key is meant", file.display());
            Err(wrong(message).remedy("give the key itself, in a file in PEM"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_model::KeyAlgorithm;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_raw(KeyAlgorithm::Ed25519, &[byte; 32]).unwrap()
    }

    #[test]
    fn successors_stand_behind_those_whom_they_follow() {
        let mut successions = Vec::new();
        put_behind(&mut successions, key(1), key(2)).unwrap();
        put_behind(&mut successions, key(7), key(8)).unwrap();
        put_behind(&mut successions, key(2), key(3)).unwrap();
        let expected = [vec![key(1), key(2), key(3)], vec![key(7), key(8)]];
        assert_eq!(successions, expected);
        put_behind(&mut successions, key(1), key(2)).unwrap();
        assert_eq!(successions, expected, "it said so already");
        for (old, new, why) in [
            (1, 1, "its own successor"),
            (1, 4, "has a successor already"),
            (3, 1, "cannot be its successor"),
            (3, 8, "is in a succession already"),
            (9, 2, "is in a succession already"),
        ] {
            let refused = put_behind(&mut successions, key(old), key(new)).unwrap_err();
            assert_eq!(refused.code, Code::ArgumentsInvalid);
            assert!(refused.message.contains(why), "{refused:?}");
            assert_eq!(successions, expected);
        }
    }

    #[test]
    fn a_file_says_which_key_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let private = folder.path().join("new.pem");
        let made = signing_key_file::create(&private).unwrap();
        assert_eq!(key_of(&private).unwrap(), *made.public());
        let unsigned = folder.path().join("unsigned.wasm");
        std::fs::write(&unsigned, b"\0asm\x0d\0\x01\0").unwrap();
        assert!(key_of(&unsigned).is_err());
        assert!(key_of(&folder.path().join("none")).is_err());
        let mut parameters = NetworkParameters::initial(Vec::new(), 1);
        let text = private.display().to_string();
        assert_eq!(succeed(&mut parameters, &text).unwrap_err().code, Code::ArgumentsInvalid, "no OLD=NEW");
        assert_eq!(succeed(&mut parameters, &format!("{text}={text}")).unwrap_err().code, Code::ArgumentsInvalid);
        assert_eq!(unsucceed(&mut parameters, &text).unwrap_err().code, Code::ArgumentsInvalid);
        assert!(parameters.publisher_successions.is_empty());
    }
}
