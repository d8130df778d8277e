//! What the files beside a node show: certificate, token, data directory. For a node that answers,
//! and for a command line that finds none.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::files::bits_of_others;
use super::tls::{good_for, is_ours};
use crate::config::Config;
use crate::environment::{UnixTime, date};
use crate::observe::doctor::Check;

/// Days before its end at which a certificate is worth a word.
const DAYS_WARNING: u64 = 30;

/// Every check of files of the node with this configuration.
pub(super) fn all(config: &Config, now: UnixTime) -> Vec<Check> {
    if config.rpc.listen.is_empty() {
        return vec![data_directory(&config.data_dir())];
    }
    let cert = config.tls_cert_file();
    // Which names its owner's own is good for, its owner knows.
    let is_ours = std::fs::read(&cert).is_ok_and(|pem| is_ours(&pem));
    let names = if is_ours { &config.rpc.tls_extra_names[..] } else { &[] };
    vec![
        certificate(&cert, names, now),
        admin_token(&config.token_file()),
        data_directory(&config.data_dir()),
    ]
}

/// Whether clients can trust the certificate at `path`, now and for a while, by `names`.
pub fn certificate(path: &Path, names: &[String], now: UnixTime) -> Check {
    const NAME: &str = "certificate";
    let shown = path.display();
    let remedy = "remove the certificate and its key, and start the node anew: it makes new ones; \
                  clients must read the new certificate";
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) => {
            let remedy = "start the node: it makes the certificate if there is none";
            return Check::error(NAME, format_args!("{shown} cannot be read: {error}"), remedy);
        }
    };
    let first = CertificateDer::from_pem_slice(&pem).ok();
    let Some((cert, (begins, ends))) = first.and_then(|cert| {
        let validity = validity(&cert)?;
        Some((cert, validity))
    }) else {
        return Check::error(NAME, format_args!("{shown} holds no certificate in PEM"), remedy);
    };
    let seconds = now.as_secs();
    if seconds >= ends {
        let finding = format!("{shown} has expired on {}", day(ends));
        return Check::error(NAME, finding, remedy);
    }
    if seconds < begins {
        let finding = format!("{shown} is not valid before {}: the clock is behind?", day(begins));
        return Check::error(NAME, finding, "set the machine's clock");
    }
    if let Some(problem) = good_for(&cert, names, now) {
        return Check::warning(
            NAME,
            format_args!("{shown}: {problem}"),
            "one made by the node gets a name by rpc.tls_extra_names and a start; replace your own",
        );
    }
    let left = (ends - seconds) / 86_400;
    let finding = format!("{shown} is valid until {}, {left} days from now", day(ends));
    match left < DAYS_WARNING {
        true => Check::warning(NAME, finding, remedy),
        false => Check::ok(NAME, finding),
    }
}

/// Whether the token at `path` is its owner's alone.
pub fn admin_token(path: &Path) -> Check {
    const NAME: &str = "admin_token";
    let shown = path.display();
    match bits_of_others(path) {
        Ok(0) => Check::ok(NAME, format_args!("{shown} is its owner's alone")),
        Ok(bits) => Check::error(
            NAME,
            format_args!("{shown} is open to others (mode bits {bits:03o}): it opens everything"),
            format_args!(
                "chmod 600 {shown}; if somebody may have read it, remove it and start anew"
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::error(
            NAME,
            format_args!("{shown} is not there"),
            "start the node, which makes one; programs that had the old one need the new one",
        ),
        Err(error) => Check::error(
            NAME,
            format_args!("{shown} cannot be read: {error}"),
            "run this as the user who runs the node",
        ),
    }
}

/// Whether the data directory can be used, and by its owner alone.
pub fn data_directory(path: &Path) -> Check {
    const NAME: &str = "data_directory";
    let shown = path.display();
    match bits_of_others(path) {
        Ok(bits) if bits & 0o022 != 0 => Check::error(
            NAME,
            format_args!("others may write into {shown} (mode bits {bits:03o})"),
            format_args!("chmod go-w {shown}: whoever can change the store can take the money"),
        ),
        Ok(_) => Check::ok(NAME, format_args!("{shown}")),
        Err(error) => Check::error(
            NAME,
            format_args!("{shown} cannot be used: {error}"),
            "check --data-dir, and that its disk is there",
        ),
    }
}

/// `2027-01-31`.
fn day(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// From when until when a certificate is valid, seconds since 1970.
///
/// Source: RFC 5280, 4.1: `tbsCertificate` holds version, serial number, signature, issuer, and
/// then `validity`.
fn validity(cert: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate, _) = element(cert)?;
    let (_, mut rest, _) = element(certificate)?;
    // The version is left out in certificates of the first.
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    for _ in ["serial number", "signature", "issuer"] {
        rest = element(rest)?.2;
    }
    let (_, times, _) = element(rest)?;
    let (begin_tag, begins, rest) = element(times)?;
    let (end_tag, ends, _) = element(rest)?;
    Some((time(begin_tag, begins)?, time(end_tag, ends)?))
}

/// The tag of a DER element, what it holds, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(*first),
        0x81..=0x84 => {
            let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `UTCTime` or `GeneralizedTime` as seconds since 1970 (RFC 5280, 4.1.2.5: in UTC, with seconds).
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let year: u64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, text.get(2..)?)
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let days = days_before(year, month, day)?;
    Some(days * 86_400 + part(4)? * 3_600 + part(6)? * 60 + part(8)?)
}

/// Days from 1970-01-01 to a date: the one whose [`date`] it is.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    // No year is longer than 366 days, no month than 31; the answer is not far from here.
    let about = year.checked_sub(1_970)?.checked_mul(365)?.checked_add(month.checked_mul(28)?)?;
    (about.saturating_sub(31)..about + 31 + year / 4).find(|days| date(*days) == (year, month, day))
}

/// Whether anything takes connections at `address`.
pub async fn answers(address: &str) -> io::Result<SocketAddr> {
    let patience = std::time::Duration::from_secs(3);
    let dialled = tokio::time::timeout(patience, tokio::net::TcpStream::connect(address)).await;
    dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?.peer_addr()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::observe::doctor::Severity;

    /// 2026-11-22, noon.
    const NOW: Duration = Duration::from_secs(1_795_348_800);

    fn made(dir: &Path, from: (i32, u8, u8), to: (i32, u8, u8)) -> std::path::PathBuf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let path = dir.join(format!("{}.pem", to.0));
        let key = KeyPair::generate().unwrap();
        fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        path
    }

    #[test]
    fn a_certificate_is_read_and_judged_by_its_times_and_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(day(NOW.as_secs()), "2026-11-22");
        let local = ["localhost".to_owned()];
        let judge = |path: &Path| certificate(path, &local, NOW);
        let good = judge(&made(dir.path(), (2026, 1, 1), (2028, 2, 29)));
        assert_eq!(good.severity, Severity::Ok, "{good:?}");
        assert!(good.finding.ends_with("valid until 2028-02-29, 463 days from now"), "{good:?}");
        // Beyond 2049 times are written in another form.
        let long = judge(&made(dir.path(), (2026, 1, 1), (2060, 1, 1)));
        assert!(long.finding.contains("valid until 2060-01-01"), "{long:?}");
        let near = judge(&made(dir.path(), (2026, 1, 1), (2026, 12, 1)));
        assert_eq!(near.severity, Severity::Warning, "{near:?}");
        let over = judge(&made(dir.path(), (2024, 1, 1), (2025, 1, 1)));
        assert_eq!(over.severity, Severity::Error);
        assert!(over.finding.contains("has expired on 2025-01-01"), "{over:?}");
        let early = judge(&made(dir.path(), (2027, 1, 1), (2029, 1, 1)));
        assert!(early.finding.contains("not valid before 2027-01-01"), "{early:?}");
        let path = made(dir.path(), (2026, 1, 1), (2030, 1, 1));
        let named = certificate(&path, &["hub.example".to_owned()], NOW);
        assert_eq!(named.severity, Severity::Warning);
        assert!(named.finding.contains("hub.example"), "{named:?}");
        fs::write(&path, "nonsense").unwrap();
        assert!(judge(&path).finding.contains("no certificate"));
        assert!(judge(Path::new("/nowhere")).finding.contains("cannot be read"));
        assert_eq!(validity(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn what_others_may_read_or_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        assert_eq!(admin_token(&token).severity, Severity::Error);
        fs::write(&token, "x").unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o640)).unwrap();
        let open = admin_token(&token);
        assert!(open.finding.contains("040"), "{open:?}");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(admin_token(&token).severity, Severity::Ok);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(data_directory(dir.path()).severity, Severity::Error);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(data_directory(dir.path()).severity, Severity::Ok);
        assert_eq!(data_directory(Path::new("/nowhere")).severity, Severity::Error);
    }
}
