//! The names of development nodes: one connection file each in a directory of this user.
//!
//! `tributary dev` writes them at start and removes them at its end; `tributary --node
//! alice` reads them. A file left behind by a crash does no harm: nobody answers there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::connection::{Connection, ConnectionError};

/// Longest name of a node, in bytes.
const NAME_LEN_MAX: usize = 64;

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A name that could not stand as a file name.
    #[error("{name:?} is no name for a node; use 1 to 64 letters, digits, hyphens and underscores")]
    BadName {
        /// The name.
        name: String,
    },
    /// No node of that name runs.
    #[error("no development node is called {name:?}; {}", known(.running))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        running: Vec<String>,
    },
    /// The directory belongs to somebody else, who could lead clients astray.
    #[error("{path} belongs to another user; set XDG_RUNTIME_DIR to a directory of your own")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot use {path}: {source}; set XDG_RUNTIME_DIR to a directory of your own")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// A file in it cannot be used.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

fn known(names: &[String]) -> String {
    match names {
        [] => "none is running: start them with `tributary dev`".to_owned(),
        names => format!("there are {}", names.join(", ")),
    }
}

/// The registry of one user.
#[derive(Debug, Clone)]
pub struct DevRegistry {
    directory: PathBuf,
}

impl DevRegistry {
    /// Opens this user's registry: `tributary-dev` in `XDG_RUNTIME_DIR`, else
    /// `tributary-dev-<user id>` in the directory for temporary files.
    pub fn of_this_user() -> Self {
        let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("tributary-dev"),
            _ => {
                let user = match user_id() {
                    Some(id) => id.to_string(),
                    None => std::env::var("USER").unwrap_or_else(|_| "user".to_owned()),
                };
                std::env::temp_dir().join(format!("tributary-dev-{user}"))
            }
        };
        Self::within(directory)
    }

    /// Opens a registry in `directory`; it is made at the first write.
    pub fn within(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Names a node.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the name is malformed or the file cannot be written.
    pub fn write(&self, name: &str, connection: &Connection) -> Result<(), RegistryError> {
        let path = self.path(name)?;
        self.make()?;
        Ok(connection.write(&path)?)
    }

    /// Finds a node by its name.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unknown`] if there is none; others if its file cannot be used.
    pub fn read(&self, name: &str) -> Result<Connection, RegistryError> {
        let path = self.path(name)?;
        self.check_owner()?;
        match Connection::read(&path) {
            Err(ConnectionError::Missing { .. }) => {
                Err(RegistryError::Unknown { name: name.to_owned(), running: self.list()? })
            }
            read => Ok(read?),
        }
    }

    /// Lists the names, sorted. Those of a crashed run are among them.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<String>, RegistryError> {
        self.check_owner()?;
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.io(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(|source| self.io(source))?.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(name.filter(|name| is_name(name)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Forgets a node. One that is not there is success.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the name is malformed or the file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), RegistryError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RegistryError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, RegistryError> {
        match is_name(name) {
            true => Ok(self.directory.join(format!("{name}.json"))),
            false => Err(RegistryError::BadName { name: name.to_owned() }),
        }
    }

    fn make(&self) -> Result<(), RegistryError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.directory).map_err(|source| self.io(source))?;
        self.check_owner()
    }

    /// In a directory for temporary files anybody could have made ours first.
    fn check_owner(&self) -> Result<(), RegistryError> {
        match (owner(&self.directory), user_id()) {
            (Some(owner), Some(user)) if owner != user => {
                Err(RegistryError::Foreign { path: self.directory.clone() })
            }
            _ => Ok(()),
        }
    }

    fn io(&self, source: io::Error) -> RegistryError {
        RegistryError::Io { path: self.directory.clone(), source }
    }
}

/// Whether `name` is safe as a file name, everywhere.
fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(unix)]
fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    // Not what a link leads to: the link itself must be ours.
    fs::symlink_metadata(path).ok().map(|meta| meta.uid())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Option<u32> {
    None
}

/// This process's user, told by what the system says of the process; else by the home
/// directory's owner.
#[cfg(unix)]
fn user_id() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| fs::metadata(path).ok().map(|meta| meta.uid());
    of(Path::new("/proc/self"))
        .or_else(|| std::env::var_os("HOME").and_then(|home| of(Path::new(&home))))
}

#[cfg(not(unix))]
fn user_id() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(port: u16) -> Connection {
        Connection {
            rpc: format!("127.0.0.1:{port}"),
            rest: None,
            tls_cert: PathBuf::from("/dev-net/alice/tls.cert"),
            token_file: PathBuf::from("/dev-net/alice/admin.token"),
        }
    }

    #[test]
    fn names_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let registry = DevRegistry::within(directory.path().join("tributary-dev"));
        assert_eq!(registry.list().unwrap(), Vec::<String>::new());
        let error = registry.read("alice").unwrap_err().to_string();
        assert!(error.contains("`tributary dev`"), "{error}");
        registry.write("hub", &connection(1)).unwrap();
        registry.write("alice", &connection(2)).unwrap();
        assert_eq!(registry.list().unwrap(), ["alice", "hub"]);
        assert_eq!(registry.read("alice").unwrap(), connection(2));
        let error = registry.read("bob").unwrap_err().to_string();
        assert!(error.contains("there are alice, hub"), "{error}");
        registry.remove("alice").unwrap();
        registry.remove("alice").unwrap();
        assert_eq!(registry.list().unwrap(), ["hub"]);
    }

    #[test]
    fn a_name_never_leaves_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let registry = DevRegistry::within(directory.path());
        for name in ["", "../x", "a/b", ".", "ä", &"x".repeat(65)] {
            let error = registry.write(name, &connection(1)).unwrap_err();
            assert!(matches!(error, RegistryError::BadName { .. }), "{name:?}");
        }
    }

    #[test]
    fn the_directory_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let registry = DevRegistry::within(directory.path().join("mine"));
        registry.write("hub", &connection(1)).unwrap();
        let mode = fs::metadata(&registry.directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
