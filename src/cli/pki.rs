//! `tallygate pki`: a small certificate authority for trials.
//!
//! Turns arguments into calls of [`CertificateAuthority`]. Reports what was done in words on stderr and the paths of
//! the written files on stdout.
//!
//! Leaves to [`CertificateAuthority`]: keys, certificates and files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use rustls::pki_types::ServerName;

use crate::model::{CallerId, Name};

use super::check::plural;
use super::trial_authority::{AuthorityError, CertificateAuthority, ClientRequest, IssuedFiles, ValidityPeriod};
use super::{OutputFormat, print_message};

/// Validity of the authority's own certificate, in days.
const AUTHORITY_DAYS: u32 = 3650;
/// Validity of a revocation list, in days. A gateway rejects callers once the list has expired.
const LIST_DAYS: u32 = 30;
/// The host names of a gateway on this machine.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Arguments of `tallygate pki`.
#[derive(Clone, Debug, Args)]
pub struct PkiArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PkiCommand,
    /// How the paths of what was written are printed on stdout: one a line, or as JSON.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub format: OutputFormat,
}

/// The result of a command: a message and the files that were written.
struct PkiOutcome {
    message: String,
    written: Vec<PathBuf>,
}

/// The commands of the trial certificate authority.
#[derive(Clone, Debug, Subcommand)]
pub enum PkiCommand {
    /// Make an authority, a certificate for the gateway and an empty revocation list.
    Init(InitArgs),
    /// Make a client certificate for a department.
    Issue(IssueArgs),
    /// Put a certificate on the revocation list.
    Revoke(RevokeArgs),
    /// Sign the revocation list again, before it expires.
    Renew(RenewArgs),
}

/// Arguments of `tallygate pki init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Directory of the authority; created if it is missing.
    #[arg(long, default_value = "pki")]
    pub dir: PathBuf,
    /// Name of the authority [default: Tallygate trial authority, and eight random digits].
    #[arg(long, value_name = "CN")]
    pub name: Option<String>,
    /// A name or IP address of the gateway, besides localhost; may be repeated.
    #[arg(long = "host", value_name = "NAME", value_parser = parse_host)]
    pub hosts: Vec<String>,
    /// Validity of the gateway's certificate, in days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

/// Arguments of `tallygate pki issue`.
#[derive(Clone, Debug, Args)]
pub struct IssueArgs {
    /// Directory of the authority.
    #[arg(long, default_value = "pki")]
    pub dir: PathBuf,
    /// Id of the department; names the files.
    #[arg(long, value_name = "ID", value_parser = parse_department)]
    pub department: Name,
    /// URI that the certificate carries [default: spiffe://city.example/department/ID].
    #[arg(long, conflicts_with = "dns")]
    pub uri: Option<String>,
    /// DNS name that the certificate carries instead of a URI.
    #[arg(long, value_name = "NAME")]
    pub dns: Option<String>,
    /// Validity of the certificate, in days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

/// Arguments of `tallygate pki revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// Directory of the authority.
    #[arg(long, default_value = "pki")]
    pub dir: PathBuf,
    /// The certificate to revoke.
    #[arg(value_name = "CERT.pem")]
    pub certificate: PathBuf,
}

/// Arguments of `tallygate pki renew`.
#[derive(Clone, Debug, Args)]
pub struct RenewArgs {
    /// Directory of the authority.
    #[arg(long, default_value = "pki")]
    pub dir: PathBuf,
    /// Validity of the list, in days.
    #[arg(long, default_value_t = LIST_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

/// Parses a host name of a gateway. `*.` may stand for one label (RFC 9525 section 6.3).
fn parse_host(text: &str) -> Result<String, String> {
    match ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a host name such as gateway.city.example, or an IP address such as 192.0.2.1".to_owned()),
    }
}

/// Parses a department id that is also valid in a configuration.
fn parse_department(text: &str) -> Result<Name, String> {
    let name = Name::parse(text).map_err(|bad| bad.to_string())?;
    match name.is_reserved() {
        true => Err(format!("{text:?} is reserved for Tallygate; choose another")),
        false => Ok(name),
    }
}

/// Runs the requested command, reports to people on stderr, and writes the paths of the written files to `out`.
///
/// # Errors
/// If a file already exists, is missing or is not writable. Each error states what to do.
pub fn run(args: &PkiArgs, now: Timestamp, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let PkiOutcome { message, written } = run_action(args, now)?;
    print_message(&message);
    match args.format {
        OutputFormat::Json => writeln!(out, "{:#}", serde_json::json!({ "written": written }))?,
        OutputFormat::Table => written.iter().try_for_each(|path| writeln!(out, "{}", path.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_action(args: &PkiArgs, now: Timestamp) -> Result<PkiOutcome, AuthorityError> {
    match &args.command {
        PkiCommand::Init(args) => init_authority(args, now),
        PkiCommand::Issue(args) => issue_certificate(args, now),
        PkiCommand::Revoke(args) => revoke_certificate(args, now),
        PkiCommand::Renew(args) => renew_list(args, now),
    }
}

fn init_authority(args: &InitArgs, now: Timestamp) -> Result<PkiOutcome, AuthorityError> {
    let name = args.name.clone().map_or_else(CertificateAuthority::trial_name, Ok)?;
    let authority = CertificateAuthority::create(&args.dir, &name, ValidityPeriod::days(now, AUTHORITY_DAYS))?;
    let hosts: Vec<String> =
        LOCAL_HOSTS.iter().map(|&host| host.to_owned()).chain(args.hosts.iter().cloned()).collect();
    let server = authority.issue_server(&hosts, ValidityPeriod::days(now, args.days))?;
    let list = ValidityPeriod::days(now, LIST_DAYS);
    authority.renew_revocation_list(list)?;
    let message = format!(
        "The authority \"{name}\" is in {}.\n  authority        {}\n  gateway          {} and {}, for {}\n  revocation \
         list  {}, until {} (after that, all clients are rejected; `tallygate pki renew` signs it again)\nNext: \
         tallygate pki issue --dir {} --department traffic-police",
        args.dir.display(),
        authority.certificate_path().display(),
        server.certificate.display(),
        server.key.display(),
        hosts.join(", "),
        authority.revocation_list_path().display(),
        list.until,
        args.dir.display(),
    );
    let authority_files = [authority.certificate_path(), authority.key_path(), authority.revocation_list_path()];
    let written = authority_files.into_iter().chain([server.certificate, server.key]).collect();
    Ok(PkiOutcome { message, written })
}

fn issue_certificate(args: &IssueArgs, now: Timestamp) -> Result<PkiOutcome, AuthorityError> {
    let identity = caller_identity(args);
    let IssuedFiles { certificate, key } =
        CertificateAuthority::open_directory(&args.dir)?.issue_client(&ClientRequest {
            department: args.department.clone(),
            identities: vec![identity.clone()],
            validity: ValidityPeriod::days(now, args.days),
        })?;
    let message = format!(
        "{} and {} identify the caller {identity} for {}.\nNext: curl --cacert {} --cert {} --key {} \
         https://localhost:8443/",
        certificate.display(),
        key.display(),
        plural(args.days as usize, "day"),
        args.dir.join("ca.pem").display(),
        certificate.display(),
        key.display(),
    );
    Ok(PkiOutcome { message, written: vec![certificate, key] })
}

fn caller_identity(args: &IssueArgs) -> CallerId {
    match (&args.uri, &args.dns) {
        (Some(uri), _) => CallerId::Uri(uri.clone()),
        (None, Some(host)) => CallerId::Dns(host.to_ascii_lowercase()),
        (None, None) => CallerId::Uri(format!("spiffe://city.example/department/{}", args.department)),
    }
}

fn revoke_certificate(args: &RevokeArgs, now: Timestamp) -> Result<PkiOutcome, AuthorityError> {
    let authority = CertificateAuthority::open_directory(&args.dir)?;
    let validity = ValidityPeriod::days(now, LIST_DAYS);
    authority.revoke(&args.certificate, validity)?;
    let list = authority.revocation_list_path();
    Ok(PkiOutcome { message: revocation_text(&args.certificate, &list, validity.until), written: vec![list] })
}

fn revocation_text(certificate: &Path, list: &Path, until: Timestamp) -> String {
    format!(
        "{} is revoked: it is on {}, which is valid until {until}. Gateways that use the list reject it from now on.",
        certificate.display(),
        list.display()
    )
}

fn renew_list(args: &RenewArgs, now: Timestamp) -> Result<PkiOutcome, AuthorityError> {
    let authority = CertificateAuthority::open_directory(&args.dir)?;
    let validity = ValidityPeriod::days(now, args.days);
    authority.renew_revocation_list(validity)?;
    let list = authority.revocation_list_path();
    let message = format!(
        "{} is signed again with the same entries, and is valid until {}. A gateway that has this list loads it by \
         itself.",
        list.display(),
        validity.until
    );
    Ok(PkiOutcome { message, written: vec![list] })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;
    use crate::identity::{ClientAuth, ClientAuthMode, DiskFiles, ExpiredCrlPolicy, PemStore, TlsFiles};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        pki: PkiArgs,
    }

    fn now() -> Timestamp {
        "2026-06-15T12:00:00Z".parse().expect("a time")
    }

    /// The message of `tallygate pki` for these arguments. `DIR` stands for the directory.
    fn pki(directory: &TempDir, arguments: &str) -> Result<String, String> {
        let place = directory.path().display().to_string();
        let words = ["pki".to_owned()].into_iter().chain(arguments.split(' ').map(|word| word.replace("DIR", &place)));
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        run_action(&command.pki, now()).map(|done| done.message).map_err(|error| error.to_string())
    }

    /// The listener settings that refer to the files which `pki` has written.
    fn listener_files(directory: &tempfile::TempDir) -> TlsFiles {
        let at = |file: &str| directory.path().join(file);
        let auth = ClientAuth {
            mode: ClientAuthMode::Required,
            authorities: vec![at("ca.pem")],
            revocation_lists: vec![at("revoked.crl")],
            expired_crl: ExpiredCrlPolicy::Refuse,
            ..ClientAuth::default()
        };
        TlsFiles::single(at("server.pem"), at("server.key"), Some(auth))
    }

    #[test]
    fn new_authority_is_usable_by_a_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        pki(&directory, "init --dir DIR --host gateway.city.example").expect("an authority");
        let message = pki(&directory, "issue --dir DIR --department traffic-police").expect("a certificate");
        assert!(message.contains("uri:spiffe://city.example/department/traffic-police"), "{message}");
        pki(&directory, "revoke --dir DIR DIR/clients/traffic-police.pem").expect("revoked");
        let tls =
            listener_files(&directory).load(&PemStore::new(&DiskFiles), &Clock::manual(now())).expect("usable files");
        assert_eq!(tls.warnings, Vec::<String>::new());
        for key in ["ca.key", "server.key", "clients/traffic-police.key"] {
            let mode = std::fs::metadata(directory.path().join(key)).expect("a key").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn authorities_have_distinct_default_names() {
        let name = |arguments: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            let message = pki(&directory, arguments).expect("an authority");
            message.split('"').nth(1).map(str::to_owned).expect("its name")
        };
        let (one, another) = (name("init --dir DIR"), name("init --dir DIR"));
        assert!(one.starts_with("Tallygate trial authority ") && one != another, "{one}, {another}");
        assert_eq!(name("init --dir DIR --name City"), "City");
    }

    #[test]
    fn crl_is_signed_again_with_the_listed_serials() {
        let directory = tempfile::tempdir().expect("a directory");
        pki(&directory, "init --dir DIR").expect("an authority");
        pki(&directory, "issue --dir DIR --department a").expect("a certificate");
        pki(&directory, "revoke --dir DIR DIR/clients/a.pem").expect("revoked");
        let message = pki(&directory, "renew --dir DIR --days 90").expect("a list");
        assert!(message.contains("valid until 2026-09-13T12:00:00Z"), "{message}");
        let trusted = listener_files(&directory)
            .load(&PemStore::new(&DiskFiles), &Clock::manual(now()))
            .expect("usable files")
            .trust_sets()[0]
            .trusted
            .clone();
        assert_eq!(trusted.lists[0].revoked, 1);
        assert_eq!(trusted.lists[0].next_update, "2026-09-13T12:00:00Z".parse().expect("a time"));
    }

    #[test]
    fn existing_files_are_not_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        pki(&directory, "init --dir DIR").expect("an authority");
        pki(&directory, "issue --dir DIR --department a --dns A.city.example").expect("a certificate");
        let before = std::fs::read(directory.path().join("ca.pem")).expect("a certificate");
        for again in ["init --dir DIR", "issue --dir DIR --department a"] {
            let message = pki(&directory, again).expect_err("kept");
            assert!(message.contains("already exists and is not overwritten"), "{message}");
        }
        assert_eq!(std::fs::read(directory.path().join("ca.pem")).expect("a certificate"), before);
    }

    #[test]
    fn impossible_requests_are_refused_with_a_remedy() {
        let (directory, elsewhere) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        let message = pki(&directory, "issue --dir DIR --department a").expect_err("no authority yet");
        assert!(message.contains("as `pki init` makes it"), "{message}");
        pki(&directory, "init --dir DIR").expect("an authority");
        pki(&elsewhere, "init --dir DIR").expect("another authority");
        let foreign = elsewhere.path().join("server.pem");
        for (arguments, expected) in [
            ("issue --dir DIR --department a/b", "a name is made of letters"),
            ("issue --dir DIR --department a --days 0", "0 is not in 1..=36500"),
            ("issue --dir DIR --department a --uri u --dns d", "cannot be used with"),
            ("issue --dir DIR --department a --dns *.city.example", "wildcard"),
            (&format!("revoke --dir DIR {}", foreign.display()), "revoke it where it was issued"),
            ("revoke --dir DIR DIR/server.key", "are two files mixed up?"),
            ("revoke --dir DIR DIR/ca.pem", "is the certificate of the authority itself"),
            ("issue --dir DIR --department other", "is reserved for Tallygate"),
            ("issue --dir DIR --department unknown", "is reserved for Tallygate"),
            ("init --dir DIR/new --host bad_host!", "write a host name such as"),
            ("init --dir DIR/new --host a..b", "write a host name such as"),
        ] {
            let message = pki(&directory, arguments).expect_err(expected);
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
        assert!(!directory.path().join("new").exists(), "a refused host leaves no authority behind");
        assert!(!directory.path().join("clients/a.pem").exists(), "a refused request leaves nothing behind");
    }
}
