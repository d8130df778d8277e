//! The certificate of the gRPC server: made by the node for itself, or brought by its owner.
//!
//! Clients trust the very certificate (`tls.cert`), not an authority. What the node made
//! itself carries a line that says so, and only such a certificate is ever renewed: one
//! brought by the owner is used or refused, never replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use zeroize::Zeroizing;

use super::files::{Readable, write_whole};
use crate::environment::Clock;

/// Name of the certificate's file in the data directory.
pub const CERT_FILE: &str = "tls.cert";

/// Name of the key's file in the data directory.
pub const KEY_FILE: &str = "tls.key";

/// Names every certificate made here is good for.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// First line of a certificate made here. Readers of PEM skip what is outside its blocks.
const MARK: &str = "# Made by Tributary for itself, and renewed by it.\n";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of a certificate. Longer ones are refused by some platforms.
const LIFE: Duration = Duration::from_secs(825 * 24 * 60 * 60);

/// What must be left of it at a start. It is not renewed while the node runs.
const LEFT_MIN: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}; check that its directory is yours")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The owner's certificate cannot be used.
    #[error(
        "cannot serve with the certificate {path}: {problem}; replace it and its key, or remove both to have new ones made"
    )]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of the clients' authority holds none.
    #[error("{path} holds no certificate in PEM; correct rpc.client_ca, or leave it empty")]
    ClientCa {
        /// The file.
        path: PathBuf,
    },
    /// A name cannot stand in a certificate.
    #[error(
        "cannot make a certificate for {names:?}: {source}; correct the extra names in the configuration"
    )]
    CannotMake {
        /// The names asked for.
        names: Vec<String>,
        /// What the library says.
        source: rcgen::Error,
    },
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, PEM. Clients read it too.
    pub cert: PathBuf,
    /// Its private key, PEM, for the owner alone.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Names the usual files in `data_dir`.
    pub fn within(data_dir: &Path) -> Self {
        Self { cert: data_dir.join(CERT_FILE), key: data_dir.join(KEY_FILE) }
    }
}

/// A certificate and its key.
pub struct TlsIdentity {
    cert_pem: String,
    key_pem: Zeroizing<String>,
    /// Who signs for clients, PEM; `None` if clients need no certificate.
    client_ca_pem: Option<String>,
}

impl TlsIdentity {
    /// Reads the identity from `files`, or makes it there for [`LOCAL_NAMES`] and
    /// `extra_names` (host names or IP addresses).
    ///
    /// One made here is made anew when it is damaged, when a name was added, or when less
    /// than 90 days of its 825 are left. Clients must then read it again.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be used, the owner's own certificate does not fit its
    /// key or has expired, or an extra name is malformed.
    pub fn load_or_create(
        files: &TlsFiles,
        extra_names: &[String],
        clock: &dyn Clock,
    ) -> Result<Self, TlsError> {
        let mut names: Vec<String> = LOCAL_NAMES.map(str::to_owned).into();
        names.extend(extra_names.iter().filter(|n| !LOCAL_NAMES.contains(&n.as_str())).cloned());
        let Some(cert_pem) = read(&files.cert)? else {
            return Self::create(files, names, clock);
        };
        let ours = cert_pem.starts_with(MARK);
        let problem = match read(&files.key)?.map(Zeroizing::new) {
            None => format!("its key {} is missing", files.key.display()),
            Some(key_pem) => {
                let identity = Self { cert_pem, key_pem, client_ca_pem: None };
                let checked = identity.pair().and_then(|cert| match ours {
                    true => trusted_by_clients(&cert, &names, clock),
                    false => Ok(()),
                });
                match checked {
                    Ok(()) => return Ok(identity),
                    Err(problem) => problem,
                }
            }
        };
        if !ours {
            return Err(TlsError::Unusable { path: files.cert.clone(), problem });
        }
        tracing::warn!(%problem, path = %files.cert.display(), "making the certificate anew");
        Self::create(files, names, clock)
    }

    /// Returns the certificate as PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Returns the setting of a server that serves with this identity.
    pub fn server_config(&self) -> ServerTlsConfig {
        let identity = Identity::from_pem(&self.cert_pem, &*self.key_pem);
        let config = ServerTlsConfig::new().identity(identity);
        match &self.client_ca_pem {
            Some(pem) => config.client_ca_root(Certificate::from_pem(pem)),
            None => config,
        }
    }

    /// Lets in only clients with a certificate that the authority in `client_ca` signed, if one is
    /// given.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the file cannot be read or holds no certificate.
    pub fn asking_for(mut self, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let Some(path) = client_ca else { return Ok(self) };
        let io = |source| TlsError::Io { path: path.to_owned(), source };
        let pem = fs::read_to_string(path).map_err(io)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        if !read.is_ok_and(|certificates| !certificates.is_empty()) {
            return Err(TlsError::ClientCa { path: path.to_owned() });
        }
        self.client_ca_pem = Some(pem);
        Ok(self)
    }

    /// Makes an identity and writes it, the key first: without its key no certificate shows.
    fn create(files: &TlsFiles, names: Vec<String>, clock: &dyn Clock) -> Result<Self, TlsError> {
        let cannot_make = |source| TlsError::CannotMake { names: names.clone(), source };
        let epoch = date_time_ymd(1970, 1, 1);
        let now = clock.now();
        let mut params = CertificateParams::new(names.clone()).map_err(cannot_make)?;
        // A client's clock may be behind.
        params.not_before = epoch + now.saturating_sub(DAY);
        params.not_after = epoch + now.saturating_add(LIFE);
        params.distinguished_name.push(DnType::CommonName, "tributary");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(cannot_make)?;
        let cert = params.self_signed(&key).map_err(cannot_make)?;
        let identity = Self {
            cert_pem: format!("{MARK}{}", cert.pem()),
            key_pem: Zeroizing::new(key.serialize_pem()),
            client_ca_pem: None,
        };
        let write = |path: &Path, text: &str, readable| {
            write_whole(path, text.as_bytes(), readable)
                .map_err(|source| TlsError::Io { path: path.to_owned(), source })
        };
        write(&files.key, &identity.key_pem, Readable::ByOwner)?;
        write(&files.cert, &identity.cert_pem, Readable::ByAll)?;
        Ok(identity)
    }

    /// Returns the certificate once it is clear that the key is its own.
    fn pair(&self) -> Result<CertificateDer<'static>, String> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| format!("the certificate is no PEM ({error})"))?;
        let first = chain.first().cloned().ok_or("the file holds no certificate")?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| format!("the key is no PEM ({error})"))?;
        CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("certificate and key do not fit ({error})"))?;
        Ok(first)
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity([redacted])")
    }
}

/// Asks the verifier that clients use whether `cert` is good for all `names`, now and for as
/// long as a node may run.
fn trusted_by_clients(
    cert: &CertificateDer<'static>,
    names: &[String],
    clock: &dyn Clock,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).map_err(|error| format!("it cannot be trusted ({error})"))?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
            .build()
            .map_err(|error| format!("it cannot be trusted ({error})"))?;
    let now = clock.now();
    for name in names {
        let server = ServerName::try_from(name.as_str())
            .map_err(|_| format!("{name} is no host name or address"))?;
        for at in [now, now.saturating_add(LEFT_MIN)] {
            verifier
                .verify_server_cert(cert, &[], &server, &[], UnixTime::since_unix_epoch(at))
                .map_err(|error| format!("it is not good for {name} ({error})"))?;
        }
    }
    Ok(())
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Reads a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, TlsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Not text: judged as a damaged file, not as a failing disk.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
        Err(source) => Err(TlsError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct At(Duration);

    impl Clock for At {
        fn now(&self) -> Duration {
            self.0
        }
    }

    const START: Duration = Duration::from_secs(1_800_000_000);

    fn made(files: &TlsFiles, extra: &[&str], at: Duration) -> String {
        let extra: Vec<String> = extra.iter().map(|n| n.to_string()).collect();
        TlsIdentity::load_or_create(files, &extra, &At(at)).unwrap().cert_pem
    }

    #[test]
    fn it_is_made_once_and_the_key_is_the_owners() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles::within(directory.path());
        let first = made(&files, &[], START);
        assert_eq!(made(&files, &[], START), first);
        assert_eq!(fs::read_to_string(&files.cert).unwrap(), first);
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn it_is_made_anew_only_near_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles::within(directory.path());
        let first = made(&files, &[], START);
        assert_eq!(made(&files, &[], START + LIFE - LEFT_MIN), first);
        let second = made(&files, &[], START + LIFE - LEFT_MIN + DAY);
        assert_ne!(second, first);
        // A clock that was ahead when it was made: clients would not trust it yet.
        assert_ne!(made(&files, &[], START), second);
    }

    #[test]
    fn an_added_name_makes_it_anew() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles::within(directory.path());
        let first = made(&files, &[], START);
        let second = made(&files, &["hub.example", "192.0.2.7"], START);
        assert_ne!(second, first);
        assert_eq!(made(&files, &["192.0.2.7", "localhost"], START), second);
        let bad = TlsIdentity::load_or_create(&files, &["hüb".to_owned()], &At(START));
        let error = bad.unwrap_err();
        assert!(matches!(error, TlsError::CannotMake { .. }), "{error}");
    }

    #[test]
    fn a_damaged_one_of_ours_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles::within(directory.path());
        let other = TlsFiles::within(&directory.path().join("other"));
        made(&other, &[], START);
        let damages: [&dyn Fn(); 4] = [
            &|| fs::remove_file(&files.key).unwrap(),
            &|| fs::write(&files.key, "torn").unwrap(),
            &|| fs::write(&files.cert, MARK).unwrap(),
            // As a crash between both writes leaves it.
            &|| fs::copy(&other.key, &files.key).map(|_| ()).unwrap(),
        ];
        for damage in damages {
            let before = made(&files, &[], START);
            damage();
            let after = made(&files, &[], START);
            assert_ne!(after, before);
            assert_eq!(made(&files, &[], START), after);
        }
    }

    #[test]
    fn the_owners_own_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles::within(directory.path());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        fs::write(&files.cert, &pem).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        // It is not good for localhost, and that is its owner's affair.
        assert_eq!(made(&files, &[], START), pem);
        fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = TlsIdentity::load_or_create(&files, &[], &At(START)).unwrap_err();
        assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
        assert_eq!(fs::read_to_string(&files.cert).unwrap(), pem);
    }
}
