//! Small files beside the store, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readable {
    /// Only its owner.
    ByOwner,
    /// Everybody on the machine.
    ByAll,
}

/// Writes `bytes` to `path` so that after a crash the old or the new content is there.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], readable: Readable) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?
        .to_owned();
    name.push(".new");
    let fresh = directory.join(name);
    // A leftover of a crash may have a wider mode: the mode below only counts at creation.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match readable {
            Readable::ByOwner => 0o600,
            Readable::ByAll => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = readable;
    let mut file = options.open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

/// The permission bits that others than the owner have on `path`; 0 where there are none.
pub(crate) fn bits_of_others(path: &Path) -> io::Result<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        Ok(fs::metadata(path)?.permissions().mode() & 0o077)
    }
    #[cfg(not(unix))]
    {
        fs::metadata(path).map(|_| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_of_a_crash_lends_no_mode() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("secret");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let leftover = path.with_file_name("secret.new");
        fs::write(&leftover, "torn").unwrap();
        fs::set_permissions(&leftover, fs::Permissions::from_mode(0o666)).unwrap();
        write_whole(&path, b"one", Readable::ByOwner).unwrap();
        assert_eq!(bits_of_others(&path).unwrap(), 0);
        write_whole(&path, b"two", Readable::ByAll).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_ne!(bits_of_others(&path).unwrap(), 0);
        assert!(!leftover.exists());
    }
}
