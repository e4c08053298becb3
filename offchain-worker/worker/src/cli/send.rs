//! What every sending command prints.

use crate::cli::args::Output;
use crate::cli::connect::Session;
use crate::cli::output::pairs;
use poq_chain::{Deposit, Receipt};
use serde_json::{json, Value};

/// Prints the outcome of a sent message: what it did, in which block, and what it cost.
pub(crate) fn sent<T>(
    session: &Session,
    output: Output,
    receipt: &Receipt<T>,
    mut value: Value,
    done: String,
) -> anyhow::Result<()> {
    let (charged, returned) = match receipt.deposit {
        Deposit::Charge(amount) => (amount, 0),
        Deposit::Refund(amount) => (0, amount),
    };
    output.printer().print(
        || {
            value["block"] = json!(receipt.block.number);
            value["block_hash"] = json!(format!("{:?}", receipt.block.hash));
            value["extrinsic"] = json!(format!("{:?}", receipt.extrinsic));
            value["fee"] = json!(receipt.fee.map(|fee| fee.to_string()));
            value["deposit"] = json!({ "charged": charged.to_string(), "returned": returned.to_string() });
            value
        },
        || {
            let mut lines = vec![("block", receipt.block.number.to_string())];
            if let Some(fee) = receipt.fee {
                lines.push(("transaction fee", session.unit.show(fee)));
            }
            if charged > 0 {
                lines.push(("storage deposit", session.unit.show(charged)));
            }
            if returned > 0 {
                lines.push(("deposit returned", session.unit.show(returned)));
            }
            format!("{done}\n{}", pairs(&lines))
        },
    )
}
