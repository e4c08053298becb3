//! What a script is told by the exit status, and what a person is told of an error.

use poq_chain::Class;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Why the command failed, as an exit status. These numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something that will fail again in the same way.
    Failure = 1,
    /// The command line, a configuration or a parameter file is wrong.
    Usage = 2,
    /// The contract refused the message.
    Refused = 3,
    /// The node cannot be reached, or the failure is of a kind that passes.
    Unreachable = 4,
    /// What the chain paid differs from what the formulas say, or money is missing.
    Difference = 5,
}

/// The command line, a configuration or a parameter file is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The contract refused something for which there is no error of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// The thing waited for did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TimedOut(pub(crate) String);

/// What the chain paid differs from what the formulas say, or money is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Difference(pub(crate) String);

/// The exit status for an error: that of the first of its causes that has one.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(exit_of(error) as u8)
}

pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of_cause).unwrap_or(Exit::Failure)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(chain) = cause.downcast_ref::<poq_chain::Error>() {
        return Some(exit_of_class(chain.class()));
    }
    // The worker's errors are transparent: what they wrap is not among the causes.
    match cause.downcast_ref::<poq_worker::Error>() {
        Some(poq_worker::Error::Chain(chain)) => return Some(exit_of_class(chain.class())),
        Some(poq_worker::Error::Config(_)) => return Some(Exit::Usage),
        _ => {}
    }
    if cause.is::<Difference>() {
        Some(Exit::Difference)
    } else if cause.is::<Refused>() {
        Some(Exit::Refused)
    } else if cause.is::<TimedOut>() {
        Some(Exit::Unreachable)
    } else if cause.is::<Usage>()
        || cause.is::<crate::cli::params_file::ParamsFileError>()
        || cause.is::<poq_worker::ConfigError>()
    {
        Some(Exit::Usage)
    } else {
        None
    }
}

fn exit_of_class(class: Class) -> Exit {
    match class {
        Class::Transient | Class::Stale => Exit::Unreachable,
        Class::Rejected(_) => Exit::Refused,
        Class::Fatal => Exit::Failure,
    }
}

/// The error with its causes, each on a line; a cause that its effect already quotes is left out.
pub(crate) fn report(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  because: {}", cause.replace('\n', "\n    "));
        }
        said = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{anyhow, Context};

    #[test]
    fn the_exit_status_survives_context() {
        let wrapped = |e: anyhow::Error| e.context("while settling").context("while running the demo");
        assert_eq!(exit_of(&wrapped(Difference("1 u".into()).into())), Exit::Difference);
        assert_eq!(exit_of(&wrapped(Usage("no such flag".into()).into())), Exit::Usage);
        assert_eq!(exit_of(&wrapped(Refused("too early".into()).into())), Exit::Refused);
        assert_eq!(exit_of(&wrapped(TimedOut("30m".into()).into())), Exit::Unreachable);
        assert_eq!(exit_of(&wrapped(anyhow!("disk full"))), Exit::Failure);
    }

    #[test]
    fn causes_are_told_once() {
        let error = Err::<(), _>(anyhow!("no such file"))
            .context("cannot read k: no such file")
            .context("cannot sign");
        assert_eq!(
            report(&error.err().unwrap_or_else(|| anyhow!("none"))),
            "error: cannot sign\n  because: cannot read k: no such file"
        );
    }
}
