//! What the contract's owner announces: nothing acts before everybody who does not like it can be out with all stake. Only what
//! is configured before the first node registers, and a new task kind, acts at once.

use crate::cli::connect::Session;
use crate::cli::order::{Desk, Order};
use crate::cli::output::time;
use crate::cli::params_file::{GlobalFile, KindFile};
use poq_chain::json::ToJson;
use poq_chain::signer::parse_account;
use poq_chain::types::{Change, Lever, Millis, Pending};
use poq_chain::{to_account32, to_ink, Message, Receipt, View};
use serde_json::{json, Value};
use std::str::FromStr;

/// What a change is about, as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeverArg(pub(crate) Lever);

impl FromStr for LeverArg {
    type Err = String;

    fn from_str(text: &str) -> Result<LeverArg, String> {
        let account = |text: &str| parse_account(text).map(|a| to_ink(&a)).map_err(|e| e.to_string());
        let lever = match text.split_once(':') {
            Some(("kind", number)) => {
                Lever::Kind(number.parse().map_err(|_| format!("{number} is no task kind's number"))?)
            }
            Some(("auditor", of)) => Lever::Appoint(account(of)?),
            Some(("slash", of)) => Lever::SlashAuditor(account(of)?),
            None if text == "global" => Lever::Global,
            None if text == "code" => Lever::Code,
            _ => {
                return Err(format!(
                    "{text}: write kind:N, global, auditor:ACCOUNT, slash:ACCOUNT or code, as `poq owner show` does"
                ))
            }
        };
        Ok(LeverArg(lever))
    }
}

/// What a change is about, as [`LeverArg`] reads it.
pub(crate) fn name(session: &Session, lever: &Lever) -> String {
    match lever {
        Lever::Kind(kind) => format!("kind:{kind}"),
        Lever::Global => "global".into(),
        Lever::Appoint(account) => format!("auditor:{}", session.address(&to_account32(account))),
        Lever::SlashAuditor(account) => format!("slash:{}", session.address(&to_account32(account))),
        Lever::Code => "code".into(),
    }
}

/// What a change changes, beside what there is at the view's block.
pub(crate) async fn describe(session: &Session, view: &View, change: &Change) -> anyhow::Result<String> {
    let unit = &session.unit;
    Ok(match change {
        Change::Kind(kind, params) => match view.kind(*kind).await? {
            Some(present) => {
                let changes =
                    KindFile::of(&present.kind.params, unit).changes(&KindFile::of(params, unit)).join("\n");
                if changes.is_empty() {
                    "nothing differs from what there is".into()
                } else {
                    changes
                }
            }
            None => "a new kind".into(),
        },
        Change::Global(params) => {
            let present = GlobalFile::of(&view.global_params().await?, unit);
            present.changes(&GlobalFile::of(params, unit)).join("\n")
        }
        Change::Appoint(account) => {
            format!("{} becomes an auditor", session.address(&to_account32(account)))
        }
        Change::SlashAuditor(account, amount) => format!(
            "{} of the bond of {} is burned",
            unit.show(*amount),
            session.address(&to_account32(account))
        ),
        Change::Code(hash) => format!("the contract runs the code 0x{}", hex::encode(hash)),
    })
}

/// From when a change can be enacted, `now` being block time; `None` where it acts at once.
pub(crate) fn later(acts_at: Millis, now: Millis) -> Option<Millis> {
    (acts_at > now).then_some(acts_at)
}

/// When a change acts, in words.
pub(crate) fn acts(name: &str, later: Option<Millis>) -> String {
    later.map_or_else(
        || "at once".into(),
        |from| {
            format!("from {} on, within a week, once anybody enacts it: `poq owner enact {name}`", time(from))
        },
    )
}

/// A change that was announced, or acted at once.
pub(crate) struct Announced {
    /// Where it was.
    pub(crate) receipt: Receipt<Millis>,
    /// When it acts, in words.
    pub(crate) acts: String,
    /// From when it can be enacted; `None` where it has acted.
    pub(crate) later: Option<Millis>,
}

/// Announces a change: shows from when it acts, asks, sends. `None` where it was only to be shown.
pub(crate) async fn announce(
    desk: &Desk,
    mut order: Order<'_>,
    message: Message<Millis>,
    lever: &Lever,
) -> anyhow::Result<Option<Announced>> {
    let name = name(&desk.session, lever);
    if let Some(acts_at) = order.add(&message).await? {
        // By the chain's clock, which the answer is by: this machine's may be ahead of it.
        let now = desk.session.client.best().await?.timestamp_ms;
        order.effect("acts", acts(&name, later(acts_at, now)));
    }
    if !order.agreed().await? {
        return Ok(None);
    }
    let receipt = desk.submitter.send(message).await?;
    let later = later(receipt.value, receipt.block.timestamp_ms);
    Ok(Some(Announced { acts: acts(&name, later), later, receipt }))
}

/// What is announced at the view's block: its name, what it changes, and when.
pub(crate) struct Row {
    /// As `poq owner enact` takes it.
    pub(crate) name: String,
    /// What it changes.
    pub(crate) what: String,
    /// The change, and when it can be enacted.
    pub(crate) pending: Pending<Change>,
    /// Block time.
    now: Millis,
}

impl Row {
    /// All that is announced.
    pub(crate) async fn all(session: &Session, view: &View) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for pending in view.pending().await? {
            rows.push(Row {
                name: name(session, &pending.change.lever()),
                what: describe(session, view, &pending.change).await?,
                pending,
                now: view.block().timestamp_ms,
            });
        }
        Ok(rows)
    }

    /// Whether anybody can enact it now.
    pub(crate) fn is_due(&self) -> bool {
        self.pending.is_due(self.now)
    }

    /// When it acts, in words.
    pub(crate) fn when(&self) -> String {
        if self.pending.has_lapsed(self.now) {
            return "lapsed: nobody enacted it in time".into();
        }
        if self.is_due() {
            return format!("now, once anybody enacts it: `poq owner enact {}`", self.name);
        }
        acts(&self.name, Some(self.pending.acts_at))
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "change": self.pending.change.to_json(),
            "acts_at": self.pending.acts_at,
            "due": self.is_due(),
            "lapsed": self.pending.has_lapsed(self.now),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn levers_are_read_as_they_are_named() {
        let lever = |text: &str| text.parse::<LeverArg>().map(|lever| lever.0);
        let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        let account = to_ink(&parse_account(alice).unwrap());
        assert_eq!(lever("kind:7"), Ok(Lever::Kind(7)));
        assert_eq!(lever("global"), Ok(Lever::Global));
        assert_eq!(lever("code"), Ok(Lever::Code));
        assert_eq!(lever(&format!("auditor:{alice}")), Ok(Lever::Appoint(account)));
        assert_eq!(lever(&format!("slash:{alice}")), Ok(Lever::SlashAuditor(account)));
        for (text, says) in
            [("kind:x", "kind's number"), ("kinds", "kind:N"), ("auditor:me", ""), ("", "write")]
        {
            assert!(lever(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn what_does_not_wait_acts_at_once() {
        assert_eq!((later(5, 5), later(4, 5), later(6, 5)), (None, None, Some(6)));
        assert_eq!(acts("global", None), "at once");
        assert!(acts("kind:1", Some(1_767_225_600_000)).contains("poq owner enact kind:1"));
    }
}
