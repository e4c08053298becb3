//! What a script is told by the exit status and by `--json`, and what a person is told of an error.

use poq_chain::{Class, ContractError};
use serde_json::{json, Value};
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

/// A failure that scripts tell from others.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Coded {
    /// The exit status.
    pub(crate) exit: Exit,
    /// What `--json` calls it; part of the interface.
    pub(crate) code: &'static str,
    /// What a person is told.
    pub(crate) text: String,
    /// What a script is told beside the code.
    pub(crate) details: Option<Value>,
}

/// What a cause of an error says about the whole.
struct Verdict {
    exit: Exit,
    code: String,
    details: Option<Value>,
}

/// The exit status for an error: that of the first of its causes that has one.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(exit_of(error) as u8)
}

pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    verdict(error).exit
}

fn verdict(error: &anyhow::Error) -> Verdict {
    error.chain().find_map(verdict_of_cause).unwrap_or(Verdict {
        exit: Exit::Failure,
        code: "failure".into(),
        details: None,
    })
}

fn verdict_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Verdict> {
    let plain = |exit, code: &str| Some(Verdict { exit, code: code.into(), details: None });
    if let Some(coded) = cause.downcast_ref::<Coded>() {
        return Some(Verdict { exit: coded.exit, code: coded.code.into(), details: coded.details.clone() });
    }
    if let Some(chain) = cause.downcast_ref::<poq_chain::Error>() {
        return plain(exit_of_chain(chain), &code_of_chain(chain));
    }
    if let Some(index) = cause.downcast_ref::<poq_index::Error>() {
        return match index {
            poq_index::Error::Chain(chain) => plain(exit_of_chain(chain), &code_of_chain(chain)),
            poq_index::Error::Url { .. } | poq_index::Error::Invalid(_) => plain(Exit::Usage, "usage"),
            poq_index::Error::Pruned { .. } => plain(Exit::Failure, "pruned"),
            poq_index::Error::Absent(_) => plain(Exit::Refused, "absent"),
            error if error.is_transient() => plain(Exit::Unreachable, "database"),
            _ => plain(Exit::Failure, "index"),
        };
    }
    // The worker's errors are transparent: what they wrap is not among the causes.
    match cause.downcast_ref::<poq_worker::Error>() {
        Some(poq_worker::Error::Chain(chain)) => return plain(exit_of_chain(chain), &code_of_chain(chain)),
        Some(poq_worker::Error::Config(_)) => return plain(Exit::Usage, "configuration"),
        _ => {}
    }
    if cause.is::<Difference>() {
        plain(Exit::Difference, "difference")
    } else if cause.is::<Refused>() {
        plain(Exit::Refused, "refused")
    } else if cause.is::<TimedOut>() {
        plain(Exit::Unreachable, "timed_out")
    } else if cause.is::<Usage>() {
        plain(Exit::Usage, "usage")
    } else if cause.is::<crate::cli::params_file::ParamsFileError>() {
        plain(Exit::Usage, "parameter_file")
    } else if cause.is::<poq_worker::endpoint::EndpointError>() {
        plain(Exit::Usage, "address")
    } else if cause.is::<poq_worker::ConfigError>() {
        plain(Exit::Usage, "configuration")
    } else if cause.is::<std::io::Error>() {
        plain(Exit::Failure, "io")
    } else {
        None
    }
}

fn exit_of_chain(error: &poq_chain::Error) -> Exit {
    if matches!(error, poq_chain::Error::PoolRejected { .. }) {
        return Exit::Refused;
    }
    match error.class() {
        Class::Transient | Class::Stale => Exit::Unreachable,
        Class::Rejected(_) => Exit::Refused,
        Class::Fatal => Exit::Failure,
    }
}

/// The name of a chain's error: the contract's or the pool's where it is one, else the client's.
fn code_of_chain(error: &poq_chain::Error) -> String {
    if let poq_chain::Error::PoolRejected { error, .. } = error {
        return match error {
            poq_chain::pool::Refusal::Pool(reason) => snake(&format!("{reason:?}")),
            poq_chain::pool::Refusal::Poq(reason) => snake(&format!("{reason:?}")),
            other => snake(&format!("{other:?}")),
        };
    }
    match error.rejection() {
        // What a task or the registry refuses has a reason of its own.
        Some(ContractError::Task(refusal)) => snake(&format!("{refusal:?}")),
        Some(ContractError::Registry(error)) => snake(&format!("{error:?}")),
        Some(error) => snake(&format!("{error:?}")),
        None => snake(&format!("{error:?}")),
    }
}

/// A variant's name, without its fields, as scripts write it.
fn snake(debug: &str) -> String {
    let mut code = String::new();
    for c in debug.chars().take_while(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !code.is_empty() {
            code.push('_');
        }
        code.push(c.to_ascii_lowercase());
    }
    code
}

/// The causes of an error, first to last; one that its effect already quotes is left out.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            causes.push(cause.clone());
        }
        said = cause;
    }
    causes
}

/// The error with its causes, each on a line.
pub(crate) fn report(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in causes(error) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  because: {}", cause.replace('\n', "\n    "));
    }
    text
}

/// The error as one JSON document: `code` and `exit` are part of the interface, the words are not.
pub(crate) fn report_json(error: &anyhow::Error) -> String {
    let Verdict { exit, code, details } = verdict(error);
    let mut inner = json!({
        "code": code,
        "exit": exit as u8,
        "message": error.to_string(),
        "because": causes(error),
    });
    if let Some(details) = details {
        inner["details"] = details;
    }
    json!({ "error": inner }).to_string()
}

/// A command line that clap refuses, as [`report_json`] has it.
pub(crate) fn usage_json(error: &clap::Error) -> String {
    let message = error.render().to_string();
    let message = message.trim().trim_start_matches("error: ");
    json!({ "error": { "code": "usage", "exit": Exit::Usage as u8, "message": message, "because": [] } })
        .to_string()
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

    #[test]
    fn codes_are_stable() {
        let code = |error: anyhow::Error| verdict(&error.context("while asking")).code;
        let rejected =
            poq_chain::Error::Rejected { message: "stake", error: poq_chain::ContractError::TooFewNodes };
        assert_eq!(code(rejected.into()), "too_few_nodes");
        let early = ContractError::Task(poq_chain::types::Refusal::TooEarly);
        let refused = poq_chain::Error::Rejected { message: "advance", error: early };
        assert_eq!(code(refused.into()), "too_early");
        assert_eq!(code(poq_chain::Error::NoContract.into()), "no_contract");
        let unreachable = poq_chain::Error::Unreachable { attempts: "ws://h:1".into() };
        assert_eq!(code(unreachable.into()), "unreachable");
        assert_eq!(code(Usage("x".into()).into()), "usage");
        assert_eq!(code(std::io::Error::other("x").into()), "io");
        let text = report_json(&anyhow!("a").context("b"));
        assert_eq!(text, r#"{"error":{"because":["a"],"code":"failure","exit":1,"message":"b"}}"#);
    }
}
