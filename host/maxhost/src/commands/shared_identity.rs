//! One identity as it is put among the files that hosts share: its manifest and its sealed keys.

use std::path::Path;
use std::time::SystemTime;

use maxhost_model::{Code, Problem, X500Name};
use maxhost_ownership_zookeeper::{FileName, Folder, LARGEST_FILE, Put, SharedFiles};
use maxhost_pki::{KeyVault, OpenIdentity, Passphrase, Purpose, TrustRoot};

use crate::config::Config;
use crate::{key_files, mirror};

/// What sealed keys are checked with before they are given away.
pub struct Checks {
    vault: KeyVault,
    trust: TrustRoot,
}

impl Checks {
    /// With the key vault and the trust root of an installation.
    ///
    /// # Errors
    /// The vault does not open; the root certificate cannot be read.
    pub fn of(config: &Config) -> Result<Checks, Problem> {
        let passphrase = Passphrase::new(config.passphrase()?.expose())?;
        let vault = KeyVault::unlock(&config.keys(), &passphrase)?;
        let trust = TrustRoot::from_pem_file(&config.network().join("root.pem"))?;
        Ok(Checks { vault, trust })
    }

    /// Whether the keys in a folder are sealed with the vault that hosts have, and are those of this name.
    fn check(&self, folder: &Path, name: &X500Name) -> Result<(), Problem> {
        OpenIdentity::open(&self.vault, folder, name, &self.trust, SystemTime::now())?;
        if folder.join(Purpose::NodeCa.file_name()).exists() {
            self.vault.open_key(folder, Purpose::NodeCa, name)?;
        }
        Ok(())
    }
}

/// The files of an identity.
pub struct SharedIdentity {
    name: X500Name,
    manifest: (FileName, Vec<u8>),
    keys: (FileName, Vec<u8>),
}

impl SharedIdentity {
    /// Makes the files: the manifest of this text, with its keys named as hosts have them, and the keys in a folder.
    ///
    /// # Errors
    /// `manifest-invalid` if `file` is no name for a file that hosts share, or the manifest is too large; what is wrong with
    /// the keys, above all if a private key is not sealed with the vault.
    pub fn new(
        checks: &Checks,
        file: &str,
        name: &X500Name,
        text: &str,
        keys: &Path,
    ) -> Result<SharedIdentity, Problem> {
        let named = |folder| {
            FileName::new(folder, file).ok_or_else(|| {
                let text = format!(
                    "'{}': the file of a manifest that hosts share is named with up to 64 letters, digits, '-', '_' and '.', \
                     besides .toml",
                    file.escape_debug()
                );
                Problem::new(Code::ManifestInvalid, text).remedy("give the file another name")
            })
        };
        let (manifest_file, keys_file) = (named(Folder::Identities)?, named(Folder::Keys)?);
        checks.check(keys, name)?;
        let packed = key_files::pack(keys)?;
        let manifest = with_keys(text, &mirror::keys_of(file))?.into_bytes();
        for (code, what, size) in
            [(Code::ManifestInvalid, "the manifest", manifest.len()), (Code::KeyUnreadable, "the keys", packed.len())]
        {
            if size > LARGEST_FILE {
                let text =
                    format!("{what} of {name} would have {size} bytes, and hosts share {LARGEST_FILE} at the most");
                return Err(Problem::new(code, text).remedy("make it shorter: comments count too"));
            }
        }
        Ok(SharedIdentity { name: name.clone(), manifest: (manifest_file, manifest), keys: (keys_file, packed) })
    }

    /// The file of its manifest.
    pub fn file(&self) -> &FileName {
        &self.manifest.0
    }

    /// Its name.
    pub fn name(&self) -> &X500Name {
        &self.name
    }

    /// Puts the keys there, and then the manifest, so that no host sees the manifest without them.
    ///
    /// # Errors
    /// `manifest-invalid` if the keys of another identity are there under this name; the service's own.
    pub async fn put(&self, files: &SharedFiles) -> Result<Put, Problem> {
        self.check_owner(files).await?;
        let keys = files.put(&self.keys.0, &self.keys.1).await?;
        let manifest = files.put(&self.manifest.0, &self.manifest.1).await?;
        Ok(match (manifest, keys) {
            (Put::Unchanged, keys) => {
                if keys == Put::Unchanged {
                    Put::Unchanged
                } else {
                    Put::Changed
                }
            }
            (manifest, _) => manifest,
        })
    }

    /// As [`SharedIdentity::put`], if there is no manifest of this name yet; false if there is.
    ///
    /// # Errors
    /// As [`SharedIdentity::put`].
    pub async fn add(&self, files: &SharedFiles) -> Result<bool, Problem> {
        if files.read(&self.manifest.0).await?.is_some() {
            return Ok(false);
        }
        files.put(&self.keys.0, &self.keys.1).await?;
        Ok(files.create(&self.manifest.0, &self.manifest.1).await?)
    }

    /// Nobody loses the keys of an identity that is not hosted any more.
    ///
    /// # Errors
    /// `manifest-invalid` if there are keys of another identity; the service's own.
    pub async fn check_owner(&self, files: &SharedFiles) -> Result<(), Problem> {
        let present = files.read(&self.keys.0).await?.and_then(|bytes| key_files::unpack(&bytes).ok());
        let owner = present.as_ref().and_then(key_files::name_of);
        match owner.filter(|owner| X500Name::parse(owner).is_ok_and(|owner| owner != self.name)) {
            None => Ok(()),
            Some(owner) => {
                let text = format!("{} has the keys of {owner}, not of {}", self.keys.0.path(), self.name);
                Err(Problem::new(Code::ManifestInvalid, text).remedy("give the file of the manifest another name"))
            }
        }
    }
}

/// The text of a manifest, with its keys named so. All else stays as it was written.
fn with_keys(text: &str, keys: &str) -> Result<String, Problem> {
    let mut document: toml_edit::DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| Problem::new(Code::ManifestInvalid, error.message().to_owned()))?;
    if document.get("keys").and_then(|item| item.as_str()) == Some(keys) {
        return Ok(text.to_owned());
    }
    match document.get_mut("keys") {
        Some(toml_edit::Item::Value(value)) => {
            let decor = value.decor().clone();
            *value = keys.into();
            *value.decor_mut() = decor;
        }
        _ => document["keys"] = toml_edit::value(keys),
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_keys_of_a_manifest_are_named_anew() {
        let text = "# Alice\nname = \"O=Alice, L=London, C=GB\"\nkeys   = '/k' # sealed\n\n[limits]\nflows = 7\n";
        let expected = text.replace("'/k'", "\"../keys/alice\"");
        assert_eq!(with_keys(text, "../keys/alice").unwrap(), expected);
        assert_eq!(with_keys(&expected, "../keys/alice").unwrap(), expected);
        assert_eq!(with_keys("x = ", "k").unwrap_err().code, Code::ManifestInvalid);
    }
}
