//! Files with secrets and certificates: those of the RPC port, and the passphrase of the private keys.

use std::path::PathBuf;

use maxhost_flows::options::Passphrase;
use maxhost_model::{Code, Problem};
use maxhost_rpc::Tls;

use super::keys::Settings;
use super::{Config, LARGEST_PEM, PASSPHRASE_VARIABLE};
use crate::files;

impl Config {
    /// The file with the host's certificate, if there is TLS.
    pub fn certificate_file(&self) -> Option<PathBuf> {
        self.settings.tls_cert.as_ref().map(|file| self.root.join(file))
    }

    /// Whether clients must have certificates.
    pub fn asks_for_certificates(&self) -> bool {
        self.settings.tls_client_ca.is_some()
    }

    /// What the gRPC server needs for TLS, if there is TLS.
    ///
    /// # Errors
    /// `config-invalid` if one of the two files is named without the other; `file-not-found`, `file-unreadable`.
    pub fn tls(&self) -> Result<Option<Tls>, Problem> {
        let settings = &self.settings;
        let (certificate, key) = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) if settings.tls_client_ca.is_none() => return Ok(None),
            _ => {
                let text = format!("{}: [rpc.tls] needs both cert and key", self.file.display());
                return Err(Problem::new(Code::ConfigInvalid, text));
            }
        };
        let read = |file: &PathBuf| {
            let file = self.root.join(file);
            files::read_text(&file, LARGEST_PEM)
                .map_err(|error| files::io_problem(Code::FileUnreadable, "read", &file, &error))
        };
        Ok(Some(Tls {
            certificate: read(certificate)?,
            key: read(key)?.into(),
            client_ca: settings.tls_client_ca.as_ref().map(read).transpose()?,
        }))
    }

    /// The files of [`Config::tls`].
    pub fn tls_files(&self) -> Vec<PathBuf> {
        let Settings { tls_cert, tls_key, tls_client_ca, .. } = &self.settings;
        [tls_cert, tls_key, tls_client_ca].into_iter().flatten().map(|file| self.root.join(file)).collect()
    }

    /// The file with the passphrase, if one is named.
    pub fn passphrase_file(&self) -> Option<PathBuf> {
        self.settings.passphrase_file.as_ref().map(|file| self.root.join(file))
    }

    /// The passphrase: from the environment, else from the file.
    ///
    /// # Errors
    /// `passphrase-missing`; `file-not-found` if the folder of keys is missing, and the file with it.
    pub fn passphrase(&self) -> Result<Passphrase, Problem> {
        if let Some(text) = std::env::var(PASSPHRASE_VARIABLE).ok().filter(|text| !text.is_empty()) {
            return Ok(Passphrase::new(text));
        }
        let Some(file) = self.passphrase_file() else {
            return Err(Problem::new(Code::PassphraseMissing, "no passphrase for the private keys is given"));
        };
        let text = std::fs::read_to_string(&file).map_err(|error| {
            // More is missing than the passphrase, and no other passphrase would help.
            if let (std::io::ErrorKind::NotFound, Err(problem)) = (error.kind(), files::look_into(&self.keys())) {
                return problem;
            }
            Problem::new(
                Code::PassphraseMissing,
                format!("cannot read the passphrase file {}: {error}", file.display()),
            )
            .detail("file", file.display().to_string())
        })?;
        let passphrase = Passphrase::new(text);
        if passphrase.expose().is_empty() {
            return Err(Problem::new(
                Code::PassphraseMissing,
                format!("the passphrase file {} is empty", file.display()),
            ));
        }
        Ok(passphrase)
    }
}
