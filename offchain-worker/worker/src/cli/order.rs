//! Everything that signs goes through here: what it does and costs is shown first, and then somebody is asked.
//!
//! The rule: `--yes` (or `POQ_YES=1`) sends without asking; `--dry-run` shows and never sends; else the terminal is asked, and
//! where there is none nothing is sent. So neither a script nor a slip of a hand moves money that nobody meant to move.

use crate::cli::args::{Consent, SendArgs, Who};
use crate::cli::connect::{load_keys, Session};
use crate::cli::exit::{Coded, Exit};
use crate::cli::output::{pairs, Printer};
use parity_scale_codec::Decode;
use poq_chain::{AccountId32, At, Cost, Deposit, Funds, Keys, Message, Receipt, Submitter};
use serde_json::{json, Map, Value};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// A connection, the key that signs, and how its user wants to be asked.
pub(crate) struct Desk {
    /// The connection.
    pub(crate) session: Session,
    /// The key that signs.
    pub(crate) submitter: Submitter,
    /// Where results go.
    pub(crate) printer: Printer,
    consent: Consent,
    password_file: Option<PathBuf>,
}

impl SendArgs {
    /// Connects to the contract, with the key.
    pub(crate) async fn contract(&self) -> anyhow::Result<Desk> {
        self.consent.possible()?;
        // The key first: a wrong one is told at once, whatever the network does.
        let keys = self.keys()?;
        Ok(self.desk(self.connection.contract().await?, keys))
    }

    /// Connects to the chain alone, with the key.
    pub(crate) async fn chain(&self) -> anyhow::Result<Desk> {
        self.consent.possible()?;
        let keys = self.keys()?;
        Ok(self.desk(self.connection.chain().await?, keys))
    }

    /// The key that signs.
    pub(crate) fn keys(&self) -> anyhow::Result<Keys> {
        load_keys(&self.signer.key_file, self.signer.password_file.as_deref())
    }

    fn desk(&self, session: Session, keys: Keys) -> Desk {
        Desk {
            submitter: session.client.submitter(keys),
            session,
            printer: self.output.printer(),
            consent: self.consent,
            password_file: self.signer.password_file.clone(),
        }
    }
}

impl Consent {
    /// Refuses at once what could be agreed to by nobody.
    fn possible(self) -> anyhow::Result<()> {
        let somebody = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if self.yes || self.dry_run || somebody {
            return Ok(());
        }
        let text = "nothing was sent: this asks before it sends, and there is no terminal to ask on; add --yes (or set POQ_YES=1) to \
                    send it unasked, or --dry-run to see what it would do and cost";
        let exit = Exit::Usage;
        Err(Coded { exit, code: "confirmation_required", text: text.into(), details: None }.into())
    }
}

impl Desk {
    /// The account that signs.
    pub(crate) fn account(&self) -> AccountId32 {
        self.submitter.account()
    }

    /// The account of an address or a key file.
    pub(crate) fn who(&self, who: &Who) -> anyhow::Result<AccountId32> {
        who.account(self.password_file.as_deref())
    }

    /// Something that is about to be sent, in words (`stake 5 UNIT on node 1`).
    pub(crate) fn order(&self, what: impl Into<String>) -> Order<'_> {
        Order { desk: self, what: what.into(), effects: Vec::new(), notes: Vec::new(), sums: Sums::default() }
    }

    /// One message: shows it, asks, sends it. `None` where it was only to be shown.
    pub(crate) async fn send<T: Decode + Clone>(
        &self,
        mut order: Order<'_>,
        message: Message<T>,
    ) -> anyhow::Result<Option<Receipt<T>>> {
        order.add(&message).await?;
        if !order.agreed().await? {
            return Ok(None);
        }
        Ok(Some(self.submitter.send(message).await?))
    }

    /// Prints the outcome of a sent message: what it did, in which block, and what it cost.
    pub(crate) fn done<T>(
        &self,
        receipt: &Receipt<T>,
        mut value: Value,
        text: impl std::fmt::Display,
    ) -> anyhow::Result<()> {
        let (charged, returned) = sides(receipt.deposit);
        let unit = &self.session.unit;
        self.printer.print(
            || {
                value["block"] = json!(receipt.block.number);
                value["block_hash"] = json!(format!("{:?}", receipt.block.hash));
                value["extrinsic"] = json!(format!("{:?}", receipt.extrinsic));
                value["fee"] = json!(receipt.fee.map(|fee| fee.to_string()));
                value["deposit"] =
                    json!({ "charged": charged.to_string(), "returned": returned.to_string() });
                value
            },
            || {
                let mut lines = vec![("block", receipt.block.number.to_string())];
                if let Some(fee) = receipt.fee {
                    lines.push(("transaction fee", unit.show(fee)));
                }
                if charged > 0 {
                    lines.push(("storage deposit", unit.show(charged)));
                }
                if returned > 0 {
                    lines.push(("deposit returned", unit.show(returned)));
                }
                format!("{text}\n{}", pairs(&lines))
            },
        )
    }
}

fn sides(deposit: Deposit) -> (u128, u128) {
    match deposit {
        Deposit::Charge(amount) => (amount, 0),
        Deposit::Refund(amount) => (0, amount),
    }
}

/// What all of an order's transactions take from the sender.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    calls: u32,
    value: u128,
    fee: u128,
    /// How many calls' fees cannot be told before they are due.
    unknown: u32,
    charged: u128,
    returned: u128,
}

impl Sums {
    fn add(&mut self, cost: &Cost) {
        let (charged, returned) = sides(cost.deposit);
        self.calls = self.calls.saturating_add(1);
        self.value = self.value.saturating_add(cost.value);
        self.fee = self.fee.saturating_add(cost.fee.unwrap_or(0));
        self.unknown = self.unknown.saturating_add(u32::from(cost.fee.is_none()));
        self.charged = self.charged.saturating_add(charged);
        self.returned = self.returned.saturating_add(returned);
    }

    fn needed(&self) -> u128 {
        self.value.saturating_add(self.fee).saturating_add(self.charged)
    }
}

/// Something that is about to be sent.
pub(crate) struct Order<'a> {
    desk: &'a Desk,
    what: String,
    effects: Vec<(String, String)>,
    notes: Vec<String>,
    sums: Sums,
}

impl Order<'_> {
    /// Something that it does.
    pub(crate) fn effect(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.effects.push((name.into(), value.into()));
    }

    /// Something that whoever is asked should know.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a message: runs it without sending it, and counts what it costs. Returns what it would return, if that can be told.
    pub(crate) async fn add<T: Decode>(&mut self, message: &Message<T>) -> anyhow::Result<Option<T>> {
        let quote = self.quoted(self.desk.submitter.quote(message).await).await?;
        self.sums.add(&quote.cost);
        Ok(quote.value)
    }

    /// Adds something else that costs.
    pub(crate) async fn add_cost(&mut self, cost: poq_chain::error::Result<Cost>) -> anyhow::Result<()> {
        let cost = self.quoted(cost).await?;
        self.sums.add(&cost);
        Ok(())
    }

    /// A dry run that fails for lack of money says what is needed and what is there.
    async fn quoted<T>(&self, quoted: poq_chain::error::Result<T>) -> anyhow::Result<T> {
        match quoted {
            Err(poq_chain::Error::InsufficientFunds { needed, .. }) => {
                let funds = self.funds().await?;
                let sums = Sums { value: self.sums.value.saturating_add(needed), ..self.sums };
                Err(self.lacks(&sums, &funds, true).into())
            }
            other => Ok(other?),
        }
    }

    async fn funds(&self) -> anyhow::Result<Funds> {
        Ok(self.desk.session.client.funds(&self.desk.account(), At::Best).await?)
    }

    fn lacks(&self, sums: &Sums, funds: &Funds, at_least: bool) -> Coded {
        let session = &self.desk.session;
        let unit = &session.unit;
        let parts: Vec<String> = [
            (sums.value, "to send or put down"),
            (sums.fee, "of transaction fees at the most"),
            (sums.charged, "of storage deposits"),
        ]
        .into_iter()
        .filter(|(amount, _)| *amount > 0)
        .map(|(amount, of)| format!("{} {of}", unit.show(amount)))
        .collect();
        let needed = match (at_least, sums.needed()) {
            (false, needed) => format!("{} ({})", unit.show(needed), parts.join(", ")),
            (true, 0) => "money for fees and deposits".to_owned(),
            (true, needed) => format!("at least {}, and fees and deposits on top", unit.show(needed)),
        };
        let text = format!(
            "{} cannot pay for this ({}): it needs {needed}, and can spend {} ({} free, {} held, {} frozen; {} must remain). Send \
             it money (`poq transfer`)",
            session.address(&self.desk.account()),
            self.what,
            unit.show(funds.spendable),
            unit.show(funds.free),
            unit.show(funds.reserved),
            unit.show(funds.frozen),
            unit.show(funds.existential_deposit),
        );
        let details = json!({
            "account": session.address(&self.desk.account()),
            "needed": sums.needed().to_string(),
            "at_least": at_least,
            "spendable": funds.spendable.to_string(),
            "free": funds.free.to_string(),
            "held": funds.reserved.to_string(),
            "frozen": funds.frozen.to_string(),
            "existential_deposit": funds.existential_deposit.to_string(),
            "unit": { "symbol": unit.symbol, "decimals": unit.decimals },
        });
        Coded { exit: Exit::Failure, code: "insufficient_funds", text, details: Some(details) }
    }

    /// Shows what would be done and what it costs, and asks as the flags say. False where it is only to be shown, which has
    /// been done then.
    ///
    /// # Errors
    /// Where the account cannot pay for it, or somebody says no.
    pub(crate) async fn agreed(self) -> anyhow::Result<bool> {
        let funds = self.funds().await?;
        if self.sums.needed() > funds.spendable {
            return Err(self.lacks(&self.sums, &funds, false).into());
        }
        let consent = self.desk.consent;
        if consent.dry_run {
            self.desk.printer.print(|| self.json(&funds), || self.text(&funds))?;
            return Ok(false);
        }
        if consent.yes {
            return Ok(true);
        }
        eprintln!("{}", self.text(&funds));
        if ask(&mut std::io::stdin().lock(), &mut std::io::stderr())? {
            return Ok(true);
        }
        Err(Coded { exit: Exit::Failure, code: "cancelled", text: "nothing was sent".into(), details: None }
            .into())
    }

    fn text(&self, funds: &Funds) -> String {
        let (unit, sums) = (&self.desk.session.unit, &self.sums);
        let mut lines = vec![("  signed by".to_owned(), self.desk.session.address(&self.desk.account()))];
        lines.extend(self.effects.iter().map(|(name, value)| (format!("  {name}"), value.clone())));
        if sums.value > 0 {
            lines.push(("  amount".into(), unit.show(sums.value)));
        }
        let several =
            if sums.calls > 1 { format!(" for {} transactions", sums.calls) } else { String::new() };
        lines.push((
            "  transaction fee".into(),
            match (sums.unknown, sums.fee) {
                (0, fee) => format!("at most {}{several}", unit.show(fee)),
                (_, 0) => "known when it is due".into(),
                (_, fee) => format!("at most {}, and what is known only when it is due", unit.show(fee)),
            },
        ));
        if sums.charged > 0 {
            lines.push((
                "  storage deposit".into(),
                format!("{}; comes back with the storage", unit.show(sums.charged)),
            ));
        }
        if sums.returned > 0 {
            lines.push(("  deposit returned".into(), unit.show(sums.returned)));
        }
        let left = funds.spendable.saturating_sub(sums.needed());
        lines.push((
            "  spendable".into(),
            format!("{} now, at least {} then", unit.show(funds.spendable), unit.show(left)),
        ));
        let mut text = format!("{}\n{}", self.what, pairs(&lines));
        for note in &self.notes {
            text.push_str(&format!("\n  Note: {}", note.replace('\n', "\n    ")));
        }
        text
    }

    fn json(&self, funds: &Funds) -> Value {
        let sums = &self.sums;
        let effects: Map<String, Value> =
            self.effects.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "dry_run": self.desk.consent.dry_run,
            "action": self.what,
            "account": self.desk.session.address(&self.desk.account()),
            "effects": effects,
            "transactions": sums.calls,
            "amount": sums.value.to_string(),
            "fee_max": (sums.unknown == 0).then(|| sums.fee.to_string()),
            "deposit": { "charged": sums.charged.to_string(), "returned": sums.returned.to_string() },
            "spendable": funds.spendable.to_string(),
            "notes": self.notes,
        })
    }
}

/// Asks; whatever is not a yes is a no, the end of the input too.
fn ask(input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<bool> {
    write!(output, "Send it? [y/N] ")?;
    output.flush()?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (typed, sent) in [
            ("y\n", true),
            (" Yes \n", true),
            ("YES", true),
            ("n\n", false),
            ("\n", false),
            ("", false),
            ("yeah\n", false),
        ] {
            let mut shown = Vec::new();
            assert_eq!(ask(&mut typed.as_bytes(), &mut shown).unwrap(), sent, "{typed:?}");
            assert_eq!(shown, b"Send it? [y/N] ");
        }
    }
}
