//! Command line.

use std::str::FromStr;

/// When blocks are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consensus {
    /// As soon as an extrinsic arrives.
    InstantSeal,
    /// Every so many milliseconds, empty or not.
    ManualSeal(u64),
    /// Only by the RPC `engine_createBlock`.
    None,
}

impl FromStr for Consensus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "instant-seal" => Ok(Self::InstantSeal),
            "none" => Ok(Self::None),
            other => other
                .strip_prefix("manual-seal-")
                .and_then(|ms| ms.parse().ok())
                .filter(|ms| *ms > 0)
                .map(Self::ManualSeal)
                .ok_or_else(|| {
                    "expected `instant-seal`, `manual-seal-<milliseconds>` (for example manual-seal-3000) or `none`"
                        .to_owned()
                }),
        }
    }
}

/// Development node for contracts.
///
/// Without a chain or a base path this is `--dev`: a fresh development chain, gone when the node stops.
#[derive(Debug, clap::Parser)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) subcommand: Option<Subcommand>,

    /// When blocks are sealed: `instant-seal`, `manual-seal-<milliseconds>` or `none`. With each of them the RPC
    /// `engine_createBlock` seals one more.
    #[arg(long, default_value = "instant-seal")]
    pub(crate) consensus: Consensus,

    /// Seconds after which a sealed block becomes final.
    #[arg(long, default_value_t = 1)]
    pub(crate) finalize_delay_sec: u8,

    #[command(flatten)]
    pub(crate) run: sc_cli::RunCmd,
}

/// What the node does beside running a chain.
#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, for as long as the program runs
pub(crate) enum Subcommand {
    /// Key management utilities.
    #[command(subcommand)]
    Key(sc_cli::KeySubcommand),

    /// Write the chain specification as JSON.
    ExportChainSpec(sc_cli::ExportChainSpecCmd),

    /// Write the chain specification as JSON, as substrate-contracts-node does.
    #[allow(deprecated)]
    BuildSpec(sc_cli::BuildSpecCmd),

    /// Validate blocks.
    CheckBlock(sc_cli::CheckBlockCmd),

    /// Export blocks.
    ExportBlocks(sc_cli::ExportBlocksCmd),

    /// Export the state of a block as a chain specification.
    ExportState(sc_cli::ExportStateCmd),

    /// Import blocks.
    ImportBlocks(sc_cli::ImportBlocksCmd),

    /// Remove the whole chain.
    PurgeChain(sc_cli::PurgeChainCmd),

    /// Take back blocks.
    Revert(sc_cli::RevertCmd),

    /// Show what the database holds.
    ChainInfo(sc_cli::ChainInfoCmd),
}

#[cfg(test)]
mod tests {
    use super::Consensus;

    #[test]
    fn consensus_names_are_parsed() {
        assert_eq!("instant-seal".parse(), Ok(Consensus::InstantSeal));
        assert_eq!("manual-seal-250".parse(), Ok(Consensus::ManualSeal(250)));
        assert_eq!("none".parse(), Ok(Consensus::None));
        assert!("manual-seal-0".parse::<Consensus>().is_err());
        assert!("aura".parse::<Consensus>().is_err());
    }
}
