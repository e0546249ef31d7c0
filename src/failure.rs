//! How a command ends when it does not end well: whose fault it is, and the exit code.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::out;

/// Why the process ends.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration; each entry is a sentence. Exit code 2, as clap's own.
    Usage(Vec<String>),
    /// Anything else. Exit code 1.
    Failed(anyhow::Error),
    /// A second signal came while draining. Exit code 1, nothing left to say.
    Interrupted,
}

impl Failure {
    /// Says it on standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(problems) => {
                for problem in problems {
                    out::remark(&format!("error: {problem}"));
                }
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                out::remark(&format!("error: {error:#}"));
                ExitCode::from(1)
            }
            Self::Interrupted => ExitCode::from(1),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The sentence for an address that cannot be bound; `what` is who was to listen there.
pub fn cannot_listen(what: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "it is in use; stop what listens there or choose another address".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 are not this user's; choose a higher one".to_owned(),
        io::ErrorKind::AddrNotAvailable => "it is not an address of this machine".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("{address} ({what}) cannot be listened on: {why}")
}
